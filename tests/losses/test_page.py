"""docs/losses.md is what the docstrings say."""

from pathlib import Path

import skd_cache
from skd_cache import losses
from skd_cache.losses.page import page

COMMITTED = Path(skd_cache.__file__).parents[1] / "docs" / "losses.md"


def test_the_committed_page_is_the_generated_one():
    text = COMMITTED.read_text(encoding="utf-8")
    assert text == page(), "run python -m skd_cache.losses > docs/losses.md"


def test_every_loss_has_its_formula_its_source_and_its_options():
    sections = dict(part.split("\n", 1) for part in page().split("\n## ")[1:])
    for name in losses.names():
        formula = sections[name].split("\n\n")[1]
        assert "`" in formula
        assert "CE" in formula or "log" in formula
        assert name == "ce" or "arXiv" in sections[name]
        assert "| option | default | values |" in sections[name]


def test_the_page_says_what_corrections_there_are():
    for form in ("swap", "topk:K", "smooth:EPS"):
        assert f"`--teacher-fix {form}`" in page()
