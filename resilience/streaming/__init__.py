"""A call whose result comes in pieces."""
