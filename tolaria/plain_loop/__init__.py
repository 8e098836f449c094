"""A hand-written loop: what it hands over, and how it goes on."""
