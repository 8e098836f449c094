"""Sites: where a seed may attach, how a model is surveyed for them, and what fits there."""
