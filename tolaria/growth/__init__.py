"""Growth: the long work around a boundary, and what it needs."""
