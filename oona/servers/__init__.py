"""Servers: which there may be, and the one that we start ourselves."""
