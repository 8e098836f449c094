"""Slots: how seeds hang on a module of the host, and how they run there."""
