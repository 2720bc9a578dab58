"""Stored objects against what their commits say."""

from collections.abc import Iterator

from skd_cache.store.commit import Commit
from skd_cache.store.layout import Layout
from skd_cache.store.objects import Objects, Print, fingerprint


def check_unit(objects: Objects, layout: Layout, commit: Commit, *, full: bool) -> Iterator[str]:
    """What is wrong with a unit's objects: sizes, and with ``full`` every byte."""
    for name, grid in layout.view(commit.view).items():
        wanted = commit.objects[name].print
        _, problem = checked_object(objects, grid.object(commit.shard), wanted, not full, 0)
        if problem:
            yield problem


def checked_object(
    objects: Objects, place: str, wanted: Print, known: bool, whole: int
) -> tuple[bytes | None, str]:
    """An object's bytes if it has at most ``whole``, and what is wrong with it.

    One that is ``known`` was compared before: its size is looked at, its bytes where they are read.
    """
    size = objects.size(place)
    if size is None:
        return None, f"{place} is missing"
    if size != wanted.size:
        return None, f"{place} has {size:,} bytes, the commit says {wanted.size:,}"
    data = objects.get(place, size) if size <= whole else None
    if data is not None or not known:
        found = objects.print_of(place) if data is None else fingerprint(data)
        if found != wanted:
            return None, f"{place} is not what was committed (sha256 differs)"
    return data, ""
