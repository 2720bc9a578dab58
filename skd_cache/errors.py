"""What can go wrong, and the exit code each kind ends with."""


class SkdCacheError(Exception):
    """Something failed that is neither the user's input nor damaged data."""

    exit_code = 1


class InputError(SkdCacheError):
    """What was asked for cannot be done: a wrong name, path, option or file."""

    exit_code = 2


class DataError(SkdCacheError):
    """Stored or read data failed a check and must not be used."""

    exit_code = 3
