"""The page about the dashboard is what the dashboard says."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pages
import pytest

from resilience.monitoring.panels import ROWS, Kind


def test_the_page_about_the_dashboard_is_up_to_date() -> None:
    """The page in the documentation is what the source says: `nox -s pages -- --text` writes it."""
    assert (pages.DOCS / "dashboard.md").read_text(encoding="utf-8") == pages.page()


@pytest.mark.parametrize("number", range(1, len(ROWS) + 1))
def test_pictures_show_the_panels_that_there_are(number: int) -> None:
    """Each picture has the titles of its row's panels: `nox -s pages` draws them anew."""
    drawn = ET.parse(pages.DOCS / "pictures" / f"dashboard-{number}.svg").getroot()
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {panel.title for panel in ROWS[number - 1].panels if panel.kind is not Kind.FIGURE} <= texts
