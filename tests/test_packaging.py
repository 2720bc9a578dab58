"""What is in the repository is in the wheel."""

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg")


def folder_of(package: str) -> Path:
    lines = (line.split("=") for line in CONFIG["options"]["package_dir"].split("\n") if line)
    placed = {name.strip(): folder.strip() for name, folder in lines}
    return ROOT / placed.get(package, package.replace(".", "/"))


def test_every_package_is_listed():
    listed = {folder_of(name) for name in CONFIG["options"]["packages"].split()}
    there = {path.parent for top in ("skd_cache", "pipelines") for path in folders(top)}
    assert listed == there


def folders(top: str) -> list[Path]:
    return list((ROOT / top).rglob("__init__.py"))


def test_every_file_that_is_no_module_is_package_data():
    carried = {
        path
        for package, globs in CONFIG["options.package_data"].items()
        for glob in globs.split(",")
        for path in folder_of(package).glob(glob.strip())
    }
    there = {
        path
        for top in ("skd_cache", "pipelines")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert there == carried
