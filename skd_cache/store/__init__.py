"""Caches of logits on a disk or an object store: the only place that knows their format."""

from skd_cache.store.begin import begin_cache
from skd_cache.store.cache import Cache, create_cache, open_cache
from skd_cache.store.claim import Working
from skd_cache.store.commit import Commit
from skd_cache.store.find import find_cache, list_caches
from skd_cache.store.layout import Unit
from skd_cache.store.reader import Rows
from skd_cache.store.recipe import DatasetRecipe, PixelRecipe, Recipe, TeacherRecipe
from skd_cache.store.repair import repair
from skd_cache.store.work import Work, who_builds

__all__ = [
    "Cache",
    "Commit",
    "DatasetRecipe",
    "PixelRecipe",
    "Recipe",
    "Rows",
    "TeacherRecipe",
    "Unit",
    "Work",
    "Working",
    "begin_cache",
    "create_cache",
    "find_cache",
    "list_caches",
    "open_cache",
    "repair",
    "who_builds",
]
