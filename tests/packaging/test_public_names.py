"""The front door: what `import resilience` offers."""

from __future__ import annotations

import importlib
import inspect
import pickle
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

import resilience

ROOT = Path(__file__).parents[2]


def public_names() -> list[str]:
    """Everything a reader finds in the package who does not look behind underscores, submodules aside."""
    return sorted(
        name
        for name, value in vars(resilience).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    )


def test_the_list_is_the_surface() -> None:
    """`__all__` names every public name and nothing that is not there."""
    leaked_by_the_import_system = {"annotations"}
    assert sorted(resilience.__all__) == sorted(set(public_names()) - leaked_by_the_import_system)


def test_the_front_door_only_imports() -> None:
    """The package itself defines nothing: every name comes from a module that can be read on its own."""
    homes = {name: inspect.getmodule(getattr(resilience, name)) for name in resilience.__all__}
    assert [name for name, home in homes.items() if home is resilience] == []


@pytest.mark.parametrize("name", sorted(resilience.__all__))
def test_every_public_name_is_documented(name: str) -> None:
    """Whatever can be called or instantiated says what it does, in its own words."""
    value = getattr(resilience, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        inherited = {base.__doc__ for base in value.__mro__[1:]} if inspect.isclass(value) else set()
        assert value.__doc__
        assert value.__doc__ not in inherited


@pytest.mark.parametrize("name", sorted(resilience.__all__))
def test_every_public_name_pickles_by_reference(name: str) -> None:
    """Classes and functions can be pickled, so that they may cross to another process."""
    value = getattr(resilience, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.parametrize("package", ["resilience", "providers"])
def test_both_packages_are_typed(package: str) -> None:
    """Both packages tell type checkers that their annotations count."""
    found = importlib.import_module(package)
    assert (Path(found.__path__[0]) / "py.typed").is_file()


def test_the_command_and_its_demo_are_installed() -> None:
    """`resilience` is a command, and `demo` plugs into it by entry point."""
    scripts = metadata.entry_points(group="console_scripts", name="resilience")
    assert [callable(script.load()) for script in scripts] == [True]
    commands = metadata.entry_points(group="resilience.commands", name="demo")
    assert [callable(command.load()) for command in commands] == [True]


def test_the_installed_version_is_the_repository_s() -> None:
    """Tests run against what was built from these sources, not against an older installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata.version(project["name"]) == project["version"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
