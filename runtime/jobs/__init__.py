"""Long work that may be stopped at any moment: atomic files, journals, shards, progress."""
