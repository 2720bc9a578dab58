"""``python -m skd_cache.losses``: the page about all losses, as docs/losses.md has it."""

from skd_cache.losses.page import page

print(page(), end="")
