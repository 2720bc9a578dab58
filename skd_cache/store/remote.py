"""What an object store adds to put and get: lost answers, denied actions, a hash of its own."""

import hashlib
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from skd_cache.errors import InputError
from skd_cache.store.connect import retry_seconds

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_STATUS = re.compile(r"status code: (\d{3})")
_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_REQUEST = re.compile(r"Error performing ([A-Z]+) (\S+)")
_ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject"}
Result = TypeVar("Result")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0


class Received:
    """What a store says it received: an ETag that is the md5 of the bytes put is as good as
    reading them back, against accidents.
    """

    def __init__(self) -> None:
        """Nothing was put yet."""
        self._sha256: dict[tuple[str, int], str] = {}

    def note(self, etag: str | None, data: bytes, sha256: str = "") -> str:
        """The sha256 of bytes that were put, if the store's answer proves that it has them."""
        if not etag or not _is_md5_of(etag, data):
            return ""
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        self._sha256[_plain(etag), len(data)] = sha256
        return sha256

    def sha256(self, etag: str | None, size: int) -> str | None:
        """The sha256 of an object of this tag and size, if this process put the same bytes."""
        return self._sha256.get((_plain(etag), size)) if etag else None


def patiently(act: Callable[[], Result]) -> Result:
    """Do something until it is answered: obstore repeats some requests, and lists, copies and
    removals it gives up when a connection breaks. All of ours may be repeated.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        try:
            return act()
        except GenericError as error:
            refused = _status(str(error)).startswith("4")
            if refused or time.monotonic() + pause - began > retry_seconds():
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def create(
    store: "ObjectStore", name: str, data: bytes, received: Received, sha256: str = ""
) -> str | None:
    """Put an object if there is none of that name; ``None`` if others' bytes stand there.

    A request whose answer was lost is repeated, and finds the object of the first.

    Returns:
        the sha256 of what the store proves to have received; empty if it proves nothing.
    """
    try:
        put = patiently(lambda: obstore.put(store, name, data, mode="create", use_multipart=False))
    except AlreadyExistsError:
        return patiently(lambda: _stands(store, name, data, received))
    return received.note(put["e_tag"], data, sha256)


def _stands(store: "ObjectStore", name: str, data: bytes, received: Received) -> str | None:
    try:
        found = obstore.get(store, name)
        if found.meta["size"] != len(data):
            return None
        if proof := received.note(found.meta["e_tag"], data):
            return proof
        return "" if bytes(found.bytes()) == data else None
    except FileNotFoundError:
        return None


def refusal(error: BaseException, verb: str, place: str) -> InputError | None:
    """What to say when a store denies something; ``None`` if that is not what went wrong."""
    said = str(error)
    status = _status(said)
    if _BUCKET.search(said):
        return InputError(f"cannot {verb} {place}: there is no such bucket")
    if isinstance(error, UnauthenticatedError) or status == "401":
        return InputError(f"not allowed to {verb} {place}: the server does not know who asks")
    if isinstance(error, PermissionDeniedError) or status == "403":
        lacking = _action(said) if place.startswith("s3") else f"the right to {verb} objects"
        return InputError(f"not allowed to {verb} {place}: the credentials in use lack {lacking}")
    return None


def _action(said: str) -> str:
    """What a policy calls the request that was denied."""
    method, url = found.groups() if (found := _REQUEST.search(said)) else ("", "")
    listing = "list-type" in url
    return "s3:" + ("ListBucket" if listing else _ACTIONS.get(method, "DeleteObject"))


def _status(said: str) -> str:
    return found[1] if (found := _STATUS.search(said)) else ""


def sentence(error: BaseException) -> str:
    """The first line of what obstore says, without the page that a server may have sent."""
    return str(error).split("\n", 1)[0].split(": <?xml", 1)[0]


def _is_md5_of(etag: str, data: bytes) -> bool:
    tag = _plain(etag)
    return len(tag) == 32 and tag == hashlib.md5(data, usedforsecurity=False).hexdigest()


def _plain(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
