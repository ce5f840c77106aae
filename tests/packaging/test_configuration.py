"""The page about configuration says what the profiles say."""

from __future__ import annotations

import re
from pathlib import Path

from resilience.settings import Profile, profiles
from resilience.settings._origins import plain, written

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def section(profile: Profile) -> str:
    """Return what the page tells of a profile: what it is for, and each value with its reason."""
    values = {".".join(path): plain(value) for path, value in written(profile.settings)}
    rows = [f"| `{key}` | {values[key]} | {why} |\n" for key, why in profile.reasons.items()]
    return (
        f"### `{profile.name}`\n\n{profile.purpose}.\n\n| setting | value | because |\n| --- | --- | --- |\n"
        + "".join(rows)
    )


def test_every_profile_is_told_with_its_reasons() -> None:
    """The page holds every profile, value by value, with the reason that stands beside it in the code."""
    text = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"<!-- profiles: .* -->\n\n(.*)\n<!-- end of profiles -->", text, flags=re.DOTALL)
    expected = "\n".join(section(profile) for profile in profiles())
    assert shown is not None
    assert shown[1] == expected, f"the profiles on the page should be\n\n{expected}"
