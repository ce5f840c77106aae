"""The table for people and the file for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import final

from benchmarks.check import Check
from benchmarks.floor import FLOOR
from benchmarks.footprint import Import
from benchmarks.measure import Case, Measured
from benchmarks.sections import Section

TITLES = {
    "floor": "written by hand",
    "ours": "resilience",
    "rivals": "others (retry + breaker, 3 attempts, 5 failures)",
}
DISTRIBUTIONS = (
    "aiobreaker",
    "anyio",
    "httpx",
    "hyx",
    "interlock-cb",
    "opentelemetry-sdk",
    "purgatory",
    "pyresilience",
    "redress",
    "resilient-providers",
    "stamina",
    "tenacity",
)


@final
@dataclass(frozen=True, slots=True)
class Report:
    """
    Everything one run found out.

    Args:
        cases: What was measured, in the order of the table.
        results: What it costs.
        bytes_per_provider: The weight of an idle provider.
        imports: What importing takes.
        sections: What was measured in a way of its own, by name.
        checks: The bounds; empty if only some cases were measured.
    """

    cases: Sequence[Case]
    results: Mapping[str, Measured]
    bytes_per_provider: float
    imports: Import
    sections: Mapping[str, Section]
    checks: Sequence[Check]

    def table(self) -> str:
        """Return it as text for a terminal."""
        lines = [_environment_line(), "", f"{'ns per call, CPU time':<52}{'best':>9}{'median':>9}{'x floor':>9}"]
        group = ""
        for case in self.cases:
            if case.group != group:
                group = case.group
                lines += ["", TITLES[group]]
            lines.append(f"  {case.name:<50}{self._figures(case.name)}")
        for section in self.sections.values():
            lines += ["", *section.rows()]
        lines += ["", *self._footprint(), "", *(str(check) for check in self.checks)]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._document(), indent=2) + "\n", encoding="utf-8")

    def _figures(self, name: str) -> str:
        measured = self.results[name]
        return f"{measured.best:>9,.0f}{measured.median:>9,.0f}{self._ratio(name):>9.2f}"

    def _ratio(self, name: str) -> float:
        return self.results[name].best / self.results[FLOOR].best

    def _footprint(self) -> Iterable[str]:
        yield f"an idle provider: {self.bytes_per_provider / 1024:.2f} KiB"
        added = self.imports.resilience - self.imports.interpreter
        yield f"import resilience: {added:.0f} ms of CPU more than the interpreter, {self.imports.ratio:.1f} x asyncio"

    def _row(self, case: Case) -> dict[str, object]:
        figures = asdict(self.results[case.name])
        return {"name": case.name, "group": case.group, **figures, "ratio": self._ratio(case.name)}

    def _document(self) -> dict[str, object]:
        return {
            "environment": _environment(),
            "unit": "ns of CPU time per call",
            "cases": [self._row(case) for case in self.cases],
            **{name: section.document() for name, section in self.sections.items()},
            "bytes_per_provider": self.bytes_per_provider,
            "import_ms": {**asdict(self.imports), "ratio": self.imports.ratio},
            "checks": [{**asdict(check), "holds": check.holds} for check in self.checks],
        }


def _environment() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in DISTRIBUTIONS},
    }


def _environment_line() -> str:
    found = _environment()
    return f"{found['implementation']} {found['python']}, {found['system']} {found['machine']}, {found['cpus']} CPUs"
