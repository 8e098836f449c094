"""Grafting: how the alpha of a seed goes from 0 to 1."""
