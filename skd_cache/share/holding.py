"""What one place holds of a cache, as far as it can be told without touching the data."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from skd_cache.errors import DataError
from skd_cache.store import Unit, side
from skd_cache.store.commit import Commit, SideCommit
from skd_cache.store.layout import SIDE, Layout
from skd_cache.store.ledger import Ledger
from skd_cache.store.objects import Objects
from skd_cache.store.recipe import Recipe

MAX_OBJECT_BYTES = 4 << 30
"""More nobody can put into an object store at once."""


@dataclass(frozen=True)
class Holding:
    """Recipe, commits and provenance of a cache at a place, checked against each other."""

    objects: Objects
    recipe: Recipe
    side: SideCommit
    layout: Layout
    ledger: Ledger

    @classmethod
    def at(cls, objects: Objects, views: range | None = None) -> Self:
        """Read what a place says it holds, of these views or of all.

        Raises:
            InputError: if there is no cache, or its creation was never finished.
            DataError: if what it says cannot be true.
        """
        require_plain(objects)
        recipe = side.read_recipe(objects)
        commit, layout = side.read_commit(objects, recipe)
        ledger = Ledger(objects, layout, commit)
        ledger.refresh(views)
        found = cls(objects, recipe, commit, layout, ledger)
        for told in (commit.objects, *(one.objects for one in ledger.commits.values())):
            for name, stored in told.items():
                if stored.size > MAX_OBJECT_BYTES:
                    message = f"{objects.location} says that {name} has {stored.size:,} bytes"
                    raise DataError(f"{message}; at most {MAX_OBJECT_BYTES:,} can be right")
        return found

    @property
    def provenance(self) -> dict[str, Any]:
        """What was noted about the build."""
        return side.read_provenance(self.objects, self.recipe)

    def units(self, views: range | None) -> dict[Unit, Commit]:
        """The committed units, of these views or of all, in order."""
        commits = sorted(self.ledger.commits.items())
        return {unit: commit for unit, commit in commits if views is None or unit.view in views}


def require_plain(objects: Objects) -> None:
    """Refuse a folder that leads elsewhere: others may have filled it.

    Raises:
        DataError: if it holds anything but folders and files.
    """
    if objects.folder is None:
        return
    for place, folders, files in os.walk(objects.folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            with suppress(FileNotFoundError):  # somebody builds it
                if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFDIR, stat.S_IFREG):
                    raise DataError(f"{path} is neither a folder nor a file: a cache has no links")


def is_created(objects: Objects) -> bool:
    """Whether there is a cache at all."""
    return objects.size(SIDE) is not None
