"""Benches: each prints its table, with the limit or peer measured in the same run."""
