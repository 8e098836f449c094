"""The boundary: everything that happens between two stretches of training."""
