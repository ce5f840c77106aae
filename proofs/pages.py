"""Writes the pages that are made, not written: the runbook, and the dashboard as a real Prometheus has seen it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from drawing import Line, Scene, picture
from script import END, OUTAGE
from stage import Watched, watched

from resilience.monitoring import runbook
from resilience.monitoring.panels import ROWS, Kind, Row

DOCS = Path(__file__).parents[1] / "docs"
START = 5.0
COLUMNS = 2


def drawn(seen: Watched, row: Row) -> str:
    """One row of the dashboard."""
    scene = Scene(START, END, OUTAGE)
    panels = [panel for panel in row.panels if panel.kind is not Kind.FIGURE]
    return picture(scene, COLUMNS, [
        (panel, [Line.of(series, query.legend) for query in panel.queries for series in seen.over(query.text, START)])
        for panel in panels
    ])  # fmt: skip


def main() -> None:
    (DOCS / "alerts.md").write_text(runbook(), encoding="utf-8")
    if "--text" in sys.argv:
        return
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder)) as seen:
        for number, row in enumerate(ROWS, 1):
            path = DOCS / "pictures" / f"dashboard-{number}.svg"
            path.parent.mkdir(exist_ok=True)
            path.write_text(drawn(seen, row), encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
