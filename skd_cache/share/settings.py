"""What is set for good on this machine: a small JSON file, one value a key."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from skd_cache.errors import InputError

REGISTRY = "registry"
REGISTRY_VARIABLE = "SKD_CACHE_REGISTRY"
NONE = "none"
KEYS = {REGISTRY: "where the team's caches are: s3://, gs://, az://, file:// or a folder"}
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "file", "https", "http")
_MAX_BYTES = 65536


def settings_file() -> Path:
    """The file, in the platform's configuration folder."""
    return Path(platformdirs.user_config_dir("skd-cache")) / "config.json"


def registry_location(option: str | None = None) -> str | None:
    """Where the registry is: the option, else ``SKD_CACHE_REGISTRY``, else what is set.

    ``none``, or nothing in the variable, means that there is none, whatever is set.

    Raises:
        InputError: if it is no place a registry can be.
    """
    for found in (option, os.environ.get(REGISTRY_VARIABLE), read_settings().get(REGISTRY)):
        if found is not None:
            return None if found in ("", NONE) else check_registry(found)
    return None


def check_registry(location: str) -> str:
    """A registry's location in the one way it is written here.

    Raises:
        InputError: if it is no place a registry can be.
    """
    if "://" not in location:
        return str(Path(location).expanduser().absolute())
    scheme = urlsplit(location).scheme
    if scheme not in _SCHEMES:
        raise InputError(f"{location} is no registry: {scheme}:// is none of s3, gs, az, file")
    if scheme == "http" and urlsplit(location).hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InputError(f"{location} is no registry: plain http is for this machine only")
    return location.rstrip("/")


def read_settings() -> dict[str, str]:
    """All that is set.

    Raises:
        InputError: if the file is not what :func:`write_settings` writes.
    """
    place = settings_file()
    try:
        with place.open() as file:
            found = json.loads(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot use {place}: {error}: mend or remove it") from error
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise InputError(f"cannot use {place}: it is no table of texts: mend or remove it")
    return {key: value for key, value in found.items() if key in KEYS}


def write_settings(values: Mapping[str, str]) -> None:
    """Replace all that is set, at once and for good.

    Raises:
        InputError: if the folder cannot be written.
    """
    place = settings_file()
    partial = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w") as file:
                json.dump(dict(values), file, indent=2, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror}") from error
