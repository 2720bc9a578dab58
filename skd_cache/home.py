"""Where caches and dataset indexes live on this machine."""

import os
from pathlib import Path

import platformdirs


def cache_home() -> Path:
    """The folder of local caches: ``$SKD_CACHE_HOME``, else the platform's cache directory."""
    chosen = os.environ.get("SKD_CACHE_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("skd-cache"))
