"""What a run saves, when, and what it needs to go on."""
