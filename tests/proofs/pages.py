"""Writes the pages that are made, not written: the runbook, and the dashboard as a real Prometheus has seen it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from drawing import Line, Scene, picture
from script import CALLS_A_SECOND, END, OUTAGE
from stage import WINDOW, Watched, watched

from resilience.monitoring import runbook
from resilience.monitoring.panels import ROWS, Kind, Row

DOCS = Path(__file__).parents[2] / "docs"
START = 6.0
COLUMNS = 2
CALLS = f"{CALLS_A_SECOND * 7:g}"  # s3 is called by two

INTRODUCTION = f"""\
# The dashboard

One page for Grafana that tells, from the top down, what is wrong and why. This page is made by `nox -s pages`, from the
same source as the dashboard.

```sh
resilience dashboards --output dashboard.json   # in Grafana: Dashboards, New, Import
resilience alerts --output alerts.yml --runbook-url https://wiki.example/alerts   # rule_files of Prometheus
```

At its top one chooses the data source, the jobs and the providers. It asks for nothing but the metrics that
[the telemetry](telemetry.md) has, under the names that Prometheus gives them; the [alerts](alerts.md) ask for the same.

The pictures are what Prometheus had to say about a small service with seven providers, which made {CALLS}
calls a second, in windows of {WINDOW}. In the shaded time, from {OUTAGE[0]:g} s to {OUTAGE[1]:g} s, `s3` was down (half
of its calls went on with `backup`), four of ten attempts at `openai` hung, `webhook` answered 429 with `Retry-After`,
`scanner` and `mailer` took many times as long (only the limit of `scanner` is enforced), `search` was slow more often,
and the database did not answer. `openai` has an experiment: a quarter of its calls is not retried.
"""


def page() -> str:
    """The page about the dashboard."""
    return "\n".join([INTRODUCTION, *(line for number, row in enumerate(ROWS, 1) for line in chapter(number, row))])


def chapter(number: int, row: Row) -> Iterator[str]:
    """What the page says about one row."""
    yield from (f"## {row.title}", "", f"![{row.title}](pictures/dashboard-{number}.svg)", "")
    yield from ("| panel | how to read it |", "|---|---|")
    yield from (f"| {panel.title} | {panel.about} |" for panel in row.panels)
    yield ""


def drawn(seen: Watched, row: Row) -> str:
    """One row of the dashboard."""
    scene = Scene(START, END, OUTAGE)
    panels = [panel for panel in row.panels if panel.kind is not Kind.FIGURE]
    return picture(scene, COLUMNS, [
        (panel, [Line.of(series, query.legend) for query in panel.queries for series in seen.over(query.text, START)])
        for panel in panels
    ])  # fmt: skip


def main() -> None:
    """Write the pages; with ``--text`` the pictures stay as they are."""
    (DOCS / "alerts.md").write_text(runbook(), encoding="utf-8")
    (DOCS / "dashboard.md").write_text(page(), encoding="utf-8")
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
