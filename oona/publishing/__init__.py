"""Publishing: from the outbox to a server, beside the run."""
