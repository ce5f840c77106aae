"""
Everything that can be run on this repository: ``nox -l`` lists it, ``nox -s demo`` is where to start.

Environments are made by uv where it is there, else by virtualenv. Tests, demo and smoke run against the built
wheel, never against the source tree.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["smoke", "lint", "types", "contracts", "tests"]

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
OLDEST = (3, 11)
WHEELHOUSE = ROOT / ".nox" / "wheelhouse"
PROMETHEUS = ROOT / ".nox" / "prometheus"

# The source tree must not stand in for the wheel: `python -P` keeps the working directory out of the path, for this
# process alone, so that tests may start Python as users do.
ISOLATED = {"PYTHONNOUSERSITE": "1", "PYTHONPATH": ""}

# What must be covered to the last branch: the parts that decide. The rest is reported.
FULLY_COVERED = (
    "resilience/_core/*",
    "resilience/policies/*",
    "resilience/call.py",
    "resilience/guard.py",
    "resilience/lane.py",
    "resilience/provider.py",
    "resilience/runtime.py",
)


# --- interpreters -----------------------------------------------------------------------------------------------

PROBE = "import json, ssl, sys, zlib; print(json.dumps([sys.implementation.name, *sys.version_info[:4]]))"


def matching(folder: Path, pattern: str) -> list[Path]:
    """What a folder holds; nothing if it must not be read, as that of another user."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def candidates() -> Iterator[str]:
    """Everything that looks like a Python interpreter, the likeliest first; much of it may not start."""
    yield sys.executable
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += [Path("/usr/bin"), Path("/usr/local/bin"), *reversed(matching(pyenv, "versions/*/bin"))]
    for folder in dict.fromkeys(folders):
        for path in matching(folder, "python3*"):
            minor = re.fullmatch(r"python3(?:\.(\d+))?", path.name)
            if minor and int(minor[1] or OLDEST[1]) >= OLDEST[1]:
                yield str(path)
    if uv := shutil.which("uv"):
        asked = subprocess.run(
            [uv, "python", "list", "--only-installed", "--offline", "--output-format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            yield from (found["path"] for found in json.loads(asked.stdout) if found.get("path"))


def version_of(path: str) -> tuple[int, int] | None:
    """The version of the interpreter at *path*; None if it does not start, is too old, or is no released CPython."""
    try:
        asked = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL
        )
        name, major, minor, _, level = json.loads(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None  # a pyenv shim of a version that is not selected, a broken link, a build without ssl
    return (major, minor) if name == "cpython" and level == "final" and (major, minor) >= OLDEST else None


def interpreters() -> dict[str, str]:
    """One interpreter per minor version that really starts: ``{"3.11": "/usr/bin/python3.11", ...}``."""
    found: dict[tuple[int, int], str] = {}
    tried: set[Path] = set()
    for path in candidates():
        real = Path(path).resolve()
        # Some version managers have one program behind many names: then the name decides.
        key = real if real.name.startswith("python") else Path(path)
        if key in tried:
            continue
        tried.add(key)
        version = version_of(path)
        if version and version not in found:
            found[version] = path
    return {f"{major}.{minor}": path for (major, minor), path in sorted(found.items())}


INTERPRETERS = interpreters()


# --- installing -------------------------------------------------------------------------------------------------


def group(name: str) -> list[str]:
    """The requirements of one dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


BUILT: list[Path] = []  # the wheel of this run of nox, shared by all its sessions


def wheel(session: nox.Session) -> Path:
    """Build the wheel, once for all sessions of this run."""
    if not BUILT:
        shutil.rmtree(WHEELHOUSE, ignore_errors=True)
        session.install(*PYPROJECT["build-system"]["requires"])
        session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(WHEELHOUSE), silent=True)
        BUILT.extend(WHEELHOUSE.glob("*.whl"))
    return BUILT[0]


def install(session: nox.Session, *groups: str) -> None:
    """Install the built wheel with all its extras, and the named dependency groups."""
    path = wheel(session)
    extras = ",".join(PYPROJECT["project"]["optional-dependencies"])
    session.install(f"{path}[{extras}]", *(requirement for name in groups for requirement in group(name)))
    # A kept environment holds the same version already, built from other sources.
    session.install("--no-deps", "--force-reinstall", str(path))


# --- for everybody ----------------------------------------------------------------------------------------------


@nox.session
def demo(session: nox.Session) -> None:
    """Upload to a misbehaving provider, unprotected and protected, and compare."""
    install(session)
    session.run("python", "-P", "-m", "resilience", "demo", *session.posargs, env=ISOLATED)


@nox.session
def smoke(session: nox.Session) -> None:
    """Say within seconds whether the built wheel, once installed, works."""
    install(session)
    session.run("python", "-P", "tests/packaging/smoke.py", env=ISOLATED)


def run_tests(session: nox.Session, version: str) -> None:
    """
    Run every test on one interpreter.

    The oldest keeps the coverage data for the coverage session. Tracing every line takes as long again, and what
    another interpreter does differently is a line or two.
    """
    install(session, "tests")
    # Whole files to each of the processes: what a file sets up once stays set up once.
    runner = ["-m", "pytest", "--numprocesses=2", "--dist=loadfile"]
    environment = dict(ISOLATED)
    if version == next(iter(INTERPRETERS)):
        runner += ["--cov", "--cov-config=pyproject.toml", "--cov-report="]
        data = ROOT / f".coverage.{version}"
        data.unlink(missing_ok=True)
        environment["COVERAGE_FILE"] = str(data)
    session.run("python", "-P", *runner, *session.posargs, env=environment)


for _version, _path in INTERPRETERS.items():

    def _tests(session: nox.Session, version: str = _version) -> None:
        run_tests(session, version)

    _tests.__doc__ = f"Run every test on {_path}."
    nox.session(python=_path, name=f"tests-{_version}")(_tests)


@nox.session(venv_backend="none", requires=[f"tests-{version}" for version in INTERPRETERS])
def tests(session: nox.Session) -> None:
    """Run every test against the built wheel, on every Python >= 3.11 found on this machine."""
    session.log("every test passed on Python " + ", ".join(INTERPRETERS))


# --- for developers ---------------------------------------------------------------------------------------------


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright, and that the public names are typed completely."""
    install(session, "types")
    session.run("mypy")
    python = str(Path(session.bin) / "python")
    session.run("pyright", "--warnings", "--pythonpath", python)
    session.run("pyright", "--verifytypes", "resilience", "--ignoreexternal", "--pythonpath", python)


@nox.session
def contracts(session: nox.Session) -> None:
    """Check who imports whom."""
    session.install(*group("contracts"), *PYPROJECT["project"]["dependencies"])
    session.run("lint-imports", "--no-cache")


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine what the tests sessions measured; the deciding parts must be covered to the last branch."""
    session.install(*group("tests"))
    measured = [str(path) for version in INTERPRETERS if (path := ROOT / f".coverage.{version}").exists()]
    if not measured:
        session.error("nothing measured yet: run `nox -s tests` first")
    session.run("coverage", "combine", "--keep", "--quiet", "--data-file=.coverage", *measured)
    session.run("coverage", "report", "--data-file=.coverage")
    session.run(
        "coverage", "report", "--data-file=.coverage", "--fail-under=100", f"--include={','.join(FULLY_COVERED)}"
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what a call costs, beside a floor written by hand and other libraries."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


def prometheus(session: nox.Session) -> str:
    """
    Return the folder of Prometheus's programs: those of this machine, or Debian's, fetched beside nox's environments.

    Fetching needs no rights, and starts no service.
    """
    if found := shutil.which("promtool"):
        return str(Path(found).parent)
    programs = PROMETHEUS / "root" / "usr" / "bin"
    if not (programs / "promtool").exists():
        if not shutil.which("apt-get"):
            session.error("install Prometheus 2.42 or newer (prometheus and promtool), then run this again")
        for folder in ("lists/partial", "cache/archives/partial"):
            (PROMETHEUS / folder).mkdir(parents=True, exist_ok=True)
        apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "-o", f"Dir::Cache={PROMETHEUS}/cache"]
        apt += ["-o", f"Dir::State::lists={PROMETHEUS}/lists"]
        with session.chdir(PROMETHEUS):
            session.run(*apt, "update", external=True)
            session.run(*apt, "download", "prometheus", external=True)
            session.run("dpkg-deb", "-x", str(next(PROMETHEUS.glob("*.deb"))), "root", external=True)
    return str(programs)


def proofs(session: nox.Session, *command: str) -> None:
    """Run a command beside Prometheus, where the proofs are, but the source tree is not."""
    path = os.pathsep.join((prometheus(session), os.environ.get("PATH", os.defpath)))
    session.run("python", "-P", *command, env={**ISOLATED, "PYTHONPATH": str(ROOT / "tests" / "proofs"), "PATH": path})


@nox.session
def monitoring(session: nox.Session) -> None:
    """Prove dashboard, alerts and telemetry with real ones: Prometheus, Grafana's types, an OTLP receiver."""
    install(session, "monitoring")
    proofs(session, "-m", "pytest", "--confcutdir=tests/proofs", "tests/proofs", *session.posargs)


@nox.session
def pages(session: nox.Session) -> None:
    """Write the pages that are made: the runbook, and the dashboard as a real Prometheus has seen it."""
    install(session, "monitoring")
    proofs(session, "tests/proofs/pages.py", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Plant faults in the core, one by one, and list those that no test notices (long; by hand)."""
    session.install(*PYPROJECT["project"]["dependencies"], *group("mutation"))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution into dist/."""
    session.install(*PYPROJECT["build-system"]["requires"])
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "hatchling", "build", "-d", "dist")
