"""``python -m skd_cache``: the command line, for torchrun and for uninstalled checkouts."""

from skd_cache.cli import main

main()
