"""
Pre-fork workers that tell their metrics as one service.

Each worker writes what it has counted into a directory that they share, and whoever is asked reads all of it. A worker
holds a lock on a file as long as it lives, so that the others know when it is gone, even if its process id is given to
somebody else. What the dead had counted is kept in one file, so that counters never fall.

======================  ============================================================================================
file                    what
======================  ============================================================================================
``{worker}.lock``       locked while the worker lives
``{worker}.json``       what it has told last, replaced as a whole
``gone.json``           what workers had counted that are no more, and which of them are in it already
``gone.lock``           locked by who reads, because reading moves the dead into that file
======================  ============================================================================================
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, final
from weakref import WeakSet

from prometheus_client import Metric as Family

from resilience.errors import ConfigurationError
from resilience.telemetry._families import Worker, dumped, loaded, merged

_log = logging.getLogger("resilience.telemetry")


@final
class Workers:
    """
    One worker among others: the one that runs here.

    Args:
        directory: Where they write. It is made if it is not there.
        interval: How often to write, in seconds.
        read: What to write.

    Raises:
        ConfigurationError: The directory cannot be used, or the platform has no file locks.
    """

    def __init__(self, directory: str | os.PathLike[str], interval: float, read: Callable[[], list[Family]]) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("metrics.directory needs file locks, which this platform does not have")
        self._directory = Path(directory).absolute()
        self._interval = interval
        self._read = read
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._begin()
        except OSError as error:
            raise ConfigurationError(
                f"metrics.directory: {str(directory)!r} cannot be written to ({error.strerror}): "
                "it has to be a directory of its own that all workers may write to"
            ) from error
        atexit.register(self.stop)
        _workers.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        if self._directory not in _named:
            name = f"{self._pid}-{secrets.token_hex(4)}"
            _named[self._directory] = name, _locked(self._directory / f"{name}.lock")
        self._name, _ = _named[self._directory]
        self._stopped = threading.Event()
        self._writing = threading.Lock()
        threading.Thread(target=self._run, args=(self._stopped,), name="resilience-metrics", daemon=True).start()

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._interval):
            self.write()

    def begin_anew(self) -> None:
        """Be a worker of one's own: this is a forked child."""
        self._begin()

    def write(self) -> None:
        """Write what this worker has counted, for the others."""
        try:
            with self._writing:
                self._write(self._path("json"), {"pid": str(self._pid), "families": dumped(self._read())})
        except Exception:  # the next time may be better, and nobody waits for this
            _log.exception("metrics could not be written", extra={"component": "telemetry"})

    def stop(self) -> None:
        """Write a last time. What was counted stays, for the others and for whoever begins anew in this process."""
        if not self._stopped.is_set() and self._pid == os.getpid():
            self._stopped.set()
            self.write()
            atexit.unregister(self.stop)
            _workers.discard(self)

    def all(self) -> list[Family]:
        """Return the metrics of all workers, this one's as they are now."""
        mine = Worker(str(self._pid), self._read())
        with _held(self._directory / "gone.lock"):
            gone = self._gone()
            alive, dead = self._others(set(gone["workers"]))
            if dead:
                families = merged([Worker("", loaded(gone["families"])), *dead.values()])
                self._bury({"families": dumped(families), "workers": list(dead)}, dead)
            else:
                families = loaded(gone["families"])
        return merged([mine, *alive, Worker("", families)])

    def _others(self, known: set[str]) -> tuple[list[Worker], dict[str, Worker]]:
        alive: list[Worker] = []
        dead: dict[str, Worker] = {}
        for path in sorted(self._directory.glob("*-*.json")):
            if path.stem == self._name:
                continue
            if path.stem in known:  # it was counted, and then somebody was interrupted
                self._remove(path.stem)
                continue
            lives = _is_locked(path.with_suffix(".lock"))
            try:
                told = json.loads(path.read_text("utf-8"))
                worker = Worker(told["pid"] if lives else "", loaded(told["families"]))
            except (KeyError, TypeError, ValueError):
                _log.warning("%s is no worker's file", path, extra={"component": "telemetry"})
            else:
                if lives:
                    alive.append(worker)
                else:
                    dead[path.stem] = worker
        return alive, dead

    def _gone(self) -> Any:
        try:
            return json.loads((self._directory / "gone.json").read_text("utf-8"))
        except FileNotFoundError:
            return {"families": [], "workers": []}

    def _bury(self, gone: Any, dead: Sequence[str] | dict[str, Worker]) -> None:
        self._write(self._directory / "gone.json", gone)
        for name in dead:
            self._remove(name)

    def _remove(self, name: str) -> None:
        for suffix in ("json", "lock"):
            (self._directory / f"{name}.{suffix}").unlink(missing_ok=True)

    def _write(self, path: Path, what: Any) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(what), "utf-8")
        new.replace(path)

    def _path(self, suffix: str) -> Path:
        return self._directory / f"{self._name}.{suffix}"


def _locked(path: Path) -> int:
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@contextlib.contextmanager
def _held(path: Path) -> Generator[None, None, None]:
    file = _locked(path)
    try:
        yield
    finally:
        os.close(file)


def _is_locked(path: Path) -> bool:
    import fcntl

    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)


_workers: WeakSet[Workers] = WeakSet()

_named: dict[Path, tuple[str, int]] = {}
"""
Under which name this process writes to a directory, and the lock that it holds until it ends.

There is one for each directory, however often telemetry is set up: what is counted goes on being counted meanwhile.
"""


def _begin_anew_after_fork() -> None:
    for _, lock in _named.values():
        os.close(lock)  # the parent holds it on
    _named.clear()
    for worker in list(_workers):
        worker.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
