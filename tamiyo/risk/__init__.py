"""Risk: one level from what goes wrong in a run, and what each level still allows."""
