"""The life of seeds: the state table, transitions, records and reports."""
