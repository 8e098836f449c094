"""Rollback: what a broken run goes back to, when it does, and who pays for it."""
