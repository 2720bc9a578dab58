"""The import matrix of the packages, and what a page of help may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skd_cache

ROOT = Path(skd_cache.__file__).parent
ANYONE = {"errors", "home", "progress", "device", "world"}
MAY_IMPORT = {
    "seed": set(),
    "batch": set(),
    "models": set(),
    "dataset": set(),
    "replay": {"seed", "dataset"},
    "pixels": {"replay", "dataset"},
    "teacher": {"replay", "dataset", "pixels", "models"},
    "codec": {"batch"},
    "store": {"seed", "batch", "codec"},
    "exchange": {"seed", "batch", "codec", "store"},
    "share": {"seed", "batch", "codec", "store"},
    "losses": {"batch"},
    "build": {"seed", "batch", "dataset", "replay", "pixels", "teacher", "codec", "store"},
    "distill": {
        *("seed", "batch", "dataset", "replay", "pixels", "models", "codec", "store", "losses"),
        "share",
    },
}


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("skd_cache.")}
    return found


def files_of(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package):
    files = files_of(package)
    assert files
    for path in files:
        extra = imported_packages(path) - MAY_IMPORT[package] - ANYONE - {package}
        assert not extra, f"{path.relative_to(ROOT)} imports {', '.join(sorted(extra))}"


def test_every_package_has_a_row():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"cli"} == set(MAY_IMPORT) - {"batch"}


@pytest.mark.parametrize("statement", ["import skd_cache", "import skd_cache.cli"])
def test_the_front_door_does_not_import_torch(statement):
    script = f"import sys; {statement}; assert not {{'torch', 'zarr', 'h5py'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
