"""Which cache somebody means: a path, a URL, a name, or the beginning of one."""

import re
from pathlib import Path

from skd_cache.errors import InputError
from skd_cache.store.layout import RECIPE, SIDE

_PREFIX = re.compile(r"^[0-9a-f]{1,16}$")
_ID = re.compile(r"^[0-9a-f]{16}$")


def find_cache(text: str, home: Path) -> str:
    """The location of the cache called ``text``: a path, a URL, an id or a unique prefix of one.

    Raises:
        InputError: if there is none, or several ids begin so.
    """
    if "://" in text or (Path(text).expanduser() / RECIPE).is_file():
        return text
    caches = list_caches(home)
    found = [path for path in caches if _PREFIX.match(text) and path.name.startswith(text)]
    if len(found) == 1:
        return str(found[0])
    if found:
        names = ", ".join(sorted(path.name for path in found))
        raise InputError(f"{text} is the beginning of several caches: {names}")
    if Path(text).expanduser().exists():
        raise InputError(f"{text} is not a cache: it has no {RECIPE}")
    known = ", ".join(path.name for path in caches[:5]) or "none"
    raise InputError(f"there is no cache {text}; caches in {home}: {known}")


def list_caches(home: Path) -> list[Path]:
    """The folders of all completely created caches in ``home``, most recently grown first."""
    if not home.is_dir():
        return []
    folders = (path for path in home.iterdir() if _ID.match(path.name))
    caches = [path for path in folders if (path / RECIPE).is_file() and (path / SIDE).is_file()]
    return sorted(caches, key=_last_commit, reverse=True)


def _last_commit(cache: Path) -> tuple[int, str]:
    """When a cache last grew: a new commit touches its view's folder, a new view the one above."""
    folders = [path for path in (cache / "commit").iterdir() if path.is_dir()]
    return max((cache / SIDE, *folders), key=_touched).stat().st_mtime_ns, cache.name


def _touched(path: Path) -> int:
    return path.stat().st_mtime_ns
