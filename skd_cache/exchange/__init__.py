"""Caches as single HDF5 files that anybody can open, and back."""

from skd_cache.exchange.dense import Dense
from skd_cache.exchange.export import complete_views, export_views
from skd_cache.exchange.layout import Form
from skd_cache.exchange.restore import restore
from skd_cache.exchange.top import Top

__all__ = ["Dense", "Form", "Top", "complete_views", "export_views", "restore"]
