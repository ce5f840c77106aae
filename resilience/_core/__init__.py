"""The decisions: synchronous, standard library only, `now` and `rng` are arguments."""
