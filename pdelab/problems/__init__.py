"""Problem families, one file each; the entry points in pyproject.toml are their catalogue."""
