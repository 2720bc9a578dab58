"""Networks from somebody's own factory."""

from pathlib import Path

import pytest

from skd_cache.errors import InputError
from skd_cache.models.architecture import create_model


def test_a_factory_that_raises_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_factory.py").write_text("def make():\n    raise KeyError('width')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"'broken_factory:make' could not .* \(KeyError: 'width'"):
        create_model("broken_factory:make", 10)
