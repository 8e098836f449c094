"""The outbox: a mapped file of rings that outlives the process that writes it."""
