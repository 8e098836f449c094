"""Trials: candidates trained in a frozen shadow of the host, and what they are worth."""
