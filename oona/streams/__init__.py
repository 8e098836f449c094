"""Redis Streams: what lies in them, and how it gets there and back."""
