"""Reading: events back from streams and outboxes, hostile until decoded."""
