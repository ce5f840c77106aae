"""How `resilience.settings` is made; import from there."""
