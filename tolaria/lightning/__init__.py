"""Esper under Lightning: the callback and what it needs to know of the trainer."""
