"""Other packages that grow networks, each in the benchmark's own training loop.

They run in an environment of their own (`make growth-peers`), one process for each run.
"""
