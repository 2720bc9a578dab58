"""Import this before torch: threads and memory behave as in a process of the command line."""

from skd_cache.cli.process import keep_memory, wait_briefly

wait_briefly()
keep_memory()
SET = True
