"""The asynchronous side of each policy, each usable on its own."""
