"""When what happens in the program that is watched, in seconds after its start."""

from __future__ import annotations

OUTAGE = (20.0, 44.0)
END = 72.0
RELOADS = ((35.0, "max_providers = 100"), (38.0, "max_providers = 0"), (50.0, "max_providers = 200"))
CALLS_A_SECOND = 20.0

HEALTHY_AT, OUTAGE_AT, RECOVERED_AT = 18.0, 42.0, 70.0
"""When to look at it: shortly before each part ends."""
