"""How a pass is going: one living line in a terminal, now and then a plain line anywhere else."""

from __future__ import annotations

from typing import Final, TextIO, final

from providers.demo.scenario import Record

_EVERY_LIVE: Final = 0.1
_EVERY_PLAIN: Final = 2.0
_BAR: Final = 20


@final
class Progress:
    """
    Shows how one pass is going.

    Args:
        title: What to call it.
        stream: Where to show it.
        live: Whether the line may be written over; only a terminal can.
    """

    def __init__(self, title: str, stream: TextIO, *, live: bool) -> None:
        self._title = title
        self._stream = stream
        self._live = live
        self._next = 0.0

    def __call__(self, record: Record, now: float) -> None:
        """Show *record* as it is *now*, if it is time to."""
        if now < self._next:
            return
        self._next = now + (_EVERY_LIVE if self._live else _EVERY_PLAIN)
        self._show(record, now)

    def done(self, record: Record) -> None:
        """Show the end."""
        self._show(record, max(job.ended for job in record.jobs))
        if self._live:
            self._stream.write("\n")

    def _show(self, record: Record, now: float) -> None:
        line = f"{self._title:12}{now:6.1f} s  {self._figures(record)}"
        self._stream.write(f"\r{line:<78}" if self._live else f"{line}\n")
        self._stream.flush()

    def _figures(self, record: Record) -> str:
        files = record.scenario.files
        stored = sum(job.stored for job in record.jobs)
        failed = sum(bool(job.error) for job in record.jobs)
        filled = _BAR * (stored + failed) // files
        bar = f"[{'#' * filled}{' ' * (_BAR - filled)}] " if self._live else ""
        text = f"{bar}{stored:4} of {files} stored, {failed} failed"
        if record.settings is None:
            return text
        changes = record.events.transitions
        return f"{text}, circuit {changes[-1].after if changes else 'closed'}"
