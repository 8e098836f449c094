"""Metrics: how long operations take, and a run's events folded into numbers others scrape."""
