"""Whether a cache speaks about these images, and about these views."""

from collections.abc import Sequence

import numpy as np

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import DataError, InputError
from skd_cache.store import Cache


def check_images(cache: Cache, images: ImageSet) -> None:
    """See that a cache was built from these very images.

    Raises:
        InputError: another dataset; the message names the field that differs.
        DataError: the same dataset with a file encoded anew; the message names the first.
    """
    recipe = cache.recipe.dataset
    for field, built, ours in (
        ("samples", recipe.samples, len(images)),
        ("classes", recipe.classes, len(images.classes)),
    ):
        if built != ours:
            raise InputError(
                f"cache {cache.id} is for another dataset than {images.name}: it has {built:,} "
                f"{field}, {images.name} has {ours:,}."
            )
    if recipe.fingerprint != images.fingerprint:
        raise InputError(
            f"cache {cache.id} is for another dataset than {images.name}: its fingerprint is "
            f"{recipe.fingerprint[:12]}, that of {images.name} {images.fingerprint[:12]} "
            "(paths, sizes or labels of the files differ)."
        )
    changed = np.flatnonzero(cache.contents != images.contents)
    if len(changed):
        first = int(changed[0])
        more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        raise DataError(
            f"{images.describe(first)} (sample {first}){more} changed since cache {cache.id} was "
            "built: restore the files, or build a cache of these."
        )


def check_views(cache: Cache, views: Sequence[int] | None) -> tuple[int, ...]:
    """The views a run goes through: those asked for, or all that are built.

    Raises:
        InputError: a view asked for is not built, or none is; the message says which are.
    """
    built = cache.views()
    if not built:
        raise InputError(f"cache {cache.id} has no complete view yet: run its build again.")
    if views is None:
        return tuple(built)
    missing = sorted(set(views) - set(built))
    if missing:
        raise InputError(
            f"cache {cache.id} does not have view {missing[0]}: built are {spans(built)}."
        )
    return tuple(views)


def spans(views: Sequence[int]) -> str:
    """Ascending numbers as ``0 to 9, 12``."""
    runs: list[list[int]] = []
    for view in views:
        if runs and runs[-1][1] == view - 1:
            runs[-1][1] = view
        else:
            runs.append([view, view])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)
