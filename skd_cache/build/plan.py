"""What a build will do, said before it does it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from skd_cache.codec import row_bytes
from skd_cache.errors import InputError
from skd_cache.store import Recipe, Unit
from skd_cache.store.recipe import PROBE_EVERY

PROBE_BYTES = 8 * 8 * 3
NORM_BYTES = 4
# Zarr's and the commits' own documents, shard indexes and checksums.
OVERHEAD = 1.02


@dataclass(frozen=True)
class Plan:
    """What is to be built, and what it takes.

    Attributes:
        recipe: of the cache.
        location: where it lies, or will.
        kin: ids of local caches that differ in codec, precision or decoder only.
        units: of the asked views.
        missing: those of them that no commit holds yet.
        exists: whether the cache was created already.
        views: those asked for.
        row_bytes: at most, of one (sample, view).
        bytes_free: on the disk of ``location``; None when it is not a local one.
    """

    recipe: Recipe
    location: str
    kin: tuple[str, ...]
    units: int
    missing: tuple[Unit, ...]
    exists: bool
    views: range
    row_bytes: float
    bytes_free: int | None

    @property
    def rows(self) -> int:
        """(sample, view) pairs still to be computed."""
        samples, shard = self.recipe.dataset.samples, self.recipe.shard
        return sum(min(shard, samples - unit.shard * shard) for unit in self.missing)

    @property
    def bytes_needed(self) -> int:
        """At most, for what is missing."""
        return int(self.rows * self.row_bytes * OVERHEAD)

    def require_disk(self) -> None:
        """Refuse to begin what cannot end.

        Raises:
            InputError: the disk holds less than what is missing may need.
        """
        if self.bytes_free is not None and self.bytes_needed > self.bytes_free:
            raise InputError(
                f"{self.location} needs up to {decimal(self.bytes_needed)} more and its disk "
                f"has {decimal(self.bytes_free)} free: free some, ask for fewer --views, a "
                "smaller --codec, or another --out"
            )

    def lines(self) -> list[str]:
        """The plan in words, one fact a line."""
        recipe = self.recipe
        done = self.units - len(self.missing)
        free = "" if self.bytes_free is None else f" ({decimal(self.bytes_free)} free)"
        said = [f"cache     {recipe.cache_id} at {self.location}"]
        said += [
            f"teacher   {teacher.architecture}, {teacher.size} px, {recipe.precision}, "
            f"weights {teacher.weights[:12]}"
            for teacher in recipe.teachers
        ]
        said += [
            f"dataset   {recipe.dataset.samples:,} samples, {recipe.dataset.classes:,} classes",
            f"views     {self.views.start} to {self.views.stop - 1}, "
            f"policy {_summary(recipe.policy)}, seed {recipe.seed}",
            f"units     {self.units}, {done} already there, {len(self.missing)} to build",
            f"disk      up to {decimal(self.bytes_needed)} more, codec "
            f"{recipe.planned_codec().name}{free}",
        ]
        if self.kin:
            said.append(f"kin       {', '.join(self.kin)} (same views, other codec or precision)")
        return said


def _summary(policy: Mapping[str, object]) -> str:
    flip = "-flip" if policy.get("flip") else ""
    return f"{policy.get('crop')}{flip}"


def make_plan(
    recipe: Recipe,
    location: str,
    *,
    views: range,
    missing: Sequence[Unit],
    exists: bool,
    kin: Sequence[str],
) -> Plan:
    """Work out what building these units takes."""
    code_bytes = row_bytes(recipe.planned_codec(), recipe.dataset.classes)
    return Plan(
        recipe=recipe,
        location=location,
        kin=tuple(kin),
        units=len(views) * recipe.shards,
        missing=tuple(missing),
        exists=exists,
        views=views,
        row_bytes=code_bytes + NORM_BYTES + PROBE_BYTES / PROBE_EVERY,
        bytes_free=_free(location),
    )


def _free(location: str) -> int | None:
    if "://" in location:
        return None
    folder = Path(location).absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free
