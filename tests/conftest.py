"""Before torch is imported: several test processes share the cores, see skd_cache.cli."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
