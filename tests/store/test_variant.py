"""A recipe's variant: absent for nearly all caches, and hashed where it is there."""

import pytest

from skd_cache.errors import DataError
from skd_cache.store import Recipe
from skd_cache.store.document import canonical_json
from tests.store.small_cache import make_recipe


def test_a_recipe_without_a_variant_is_written_as_ever():
    recipe = make_recipe()
    assert b"variant" not in recipe.canonical()
    assert recipe.cache_id == "5ac09f5aec680aeb"


def test_a_variant_has_an_id_of_its_own_and_the_same_kin():
    recipe = make_recipe()
    other = recipe.model_copy(update={"variant": 2})
    assert b'"variant":2' in other.canonical()
    assert other.cache_id != recipe.cache_id
    assert other.kin == recipe.kin
    assert Recipe.parse(other.canonical(), "it") == other


def test_a_variant_of_zero_has_one_spelling():
    told = make_recipe().model_dump(mode="json") | {"variant": 0}
    with pytest.raises(DataError, match="canonical"):
        Recipe.parse(canonical_json(told), "it")
