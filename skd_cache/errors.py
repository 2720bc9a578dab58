"""What can go wrong, and the exit code each kind ends with."""


class SkdCacheError(Exception):
    """Something failed that is neither the user's input nor damaged data.

    ``everywhere`` says that every process of a run fails with it at the same moment.
    """

    exit_code = 1
    everywhere = False


class PeerLostError(SkdCacheError):
    """Another process of the same run ended, and this one cannot go on without it."""


class UnreachableError(SkdCacheError):
    """Data of another place could not be had: it does not answer, or there is no room for them."""


class InputError(SkdCacheError):
    """What was asked for cannot be done: a wrong name, path, option or file."""

    exit_code = 2


class DataError(SkdCacheError):
    """Stored or read data failed a check and must not be used."""

    exit_code = 3
