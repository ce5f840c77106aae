"""When what happens in the program that is watched, in seconds after its start."""

from __future__ import annotations

OUTAGE = (16.0, 36.0)
RELOADS = ((28.0, "max_providers = 100"), (31.0, "max_providers = 0"), (42.0, "max_providers = 200"))
"""When the settings file says what. There is nonsense among it."""
END = 62.0
CALLS_A_SECOND = 20.0

HEALTHY_AT, OUTAGE_AT, RECOVERED_AT = 15.0, 35.0, 60.0
"""When to look at it: shortly before each part ends."""
