"""When what happens in the program that is watched, in seconds after its start."""

from __future__ import annotations

OUTAGE = (14.0, 34.0)
RELOADS = ((26.0, "max_providers = 100"), (29.0, "max_providers = 0"), (40.0, "max_providers = 200"))
"""When the settings file says what. There is nonsense among it."""
END = 60.0
CALLS_A_SECOND = 20.0

HEALTHY_AT, OUTAGE_AT, RECOVERED_AT = 13.0, 33.0, 58.0
"""When to look at it: shortly before each part ends."""
