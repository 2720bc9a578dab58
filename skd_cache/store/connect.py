"""Opens the object store behind a URL: whose credentials, which endpoint, how patiently.

Everything comes from the providers' own environment variables, which obstore reads. What it does
not read are the profiles in ``~/.aws``; where boto3 is installed, that does it for us.
"""

import importlib.util
import ipaddress
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import from_url

from skd_cache.errors import InputError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RETRY_VARIABLE = "SKD_CACHE_RETRY_SECONDS"
RETRY_SECONDS = 180.0
_S3 = ("s3", "s3a")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")


def connect(url: str) -> "ObjectStore":
    """The object store at a URL such as ``s3://bucket/path``.

    Raises:
        InputError: if it is no such URL, would be spoken to without encryption beyond this
            machine, or needs credentials that cannot be read.
    """
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=60),  # without a single byte
        "timeout": timedelta(hours=1),  # of a whole request: objects may be large, lines slow
    }
    if _plain_http(url):
        options["allow_http"] = True
    given: dict[str, Any] = {}
    try:
        if urlsplit(url).scheme in _S3 and (provider := _profile()) is not None:
            given["credential_provider"] = provider
        return from_url(url, client_options=options, retry_config=_retries(), **given)  # type: ignore[arg-type]
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"cannot use {url}: {reason}") from error


def retry_seconds() -> float:
    """How long a failing request is repeated: ``SKD_CACHE_RETRY_SECONDS``, or 180.

    Raises:
        InputError: if the variable is not a number from 0.
    """
    text = os.environ.get(RETRY_VARIABLE, str(RETRY_SECONDS))
    with suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    raise InputError(f"{RETRY_VARIABLE} is {text!r}, not a number of seconds")


def _retries() -> Any:
    return {"max_retries": 10, "retry_timeout": timedelta(seconds=retry_seconds())}


def _plain_http(url: str) -> bool:
    """Whether the server speaks plain HTTP, which is for this machine only."""
    parts = urlsplit(url)
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), "")
    if parts.scheme in _S3 and name:
        what, parts = f"{name}={os.environ[name]}", urlsplit(os.environ[name])
    else:
        what = url
    if parts.scheme != "http":
        return False
    if not _is_loopback(parts.hostname or ""):
        raise InputError(
            f"{what} would send data and credentials unencrypted to another machine: use https://"
        )
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _profile() -> Any:
    """boto3's credentials where a profile would be used, ``None`` where obstore reads its own."""
    if any(os.environ.get(name) for name in _KEYS):
        return None
    named = os.environ.get("AWS_PROFILE")
    files = [
        Path(os.environ.get(variable) or Path.home() / ".aws" / name)
        for variable, name in (
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            ("AWS_CONFIG_FILE", "config"),
        )
    ]
    if not named and not any(path.is_file() for path in files):
        return None
    if importlib.util.find_spec("boto3") is None:
        if not named:
            return None  # the machine's own role may be meant
        raise InputError(
            f"AWS_PROFILE={named} needs boto3 to be read: pip install boto3, or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return _from_boto3(named)


def _from_boto3(named: str | None) -> Any:
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError) as error:
        if not named:
            return None  # files without credentials, as `aws configure set region` leaves them
        raise InputError(f"AWS_PROFILE={named} gives no credentials: {error}") from error
