"""The reference page says what the code says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from resilience import (
    Category,
    ExperimentSettings,
    Failure,
    FailureKind,
    OperationSettings,
    ProviderRegistry,
    ProviderSettings,
    Reason,
    RetryRule,
    Settings,
    classify,
    events,
)
from resilience.failure import Verdict
from resilience.options import ViewOptions
from resilience.policies._bulkhead import DROPS
from resilience.policies.throttle import accepted
from resilience.settings._tables import Table

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"

# What a setting is measured in, by the name of its type.
UNITS = {"Duration": " s", "Positive": " s", "OptionalPositive": " s"}

VOTES = {Verdict.SUCCESS: "success", Verdict.FAILURE: "failure", Verdict.IGNORED: ""}


def table(*rows: tuple[str, ...]) -> str:
    """Return *rows*, the first of which is the head, as a table in Markdown."""
    head, *rest = rows
    lines = [head, ("---",) * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(value: object, unit: str) -> str:
    """Return a default as one would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}{unit}"
    if isinstance(value, Mapping | tuple):
        return "built-in rules" if value else "empty"
    return str(value)


def settings_table(model: type[Table]) -> str:
    """Return a table of settings: name, default with its unit, meaning."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    rows = [("setting", "default", "meaning")]
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            name, meaning = field.target.id, ast.literal_eval(text.value)
            if name.startswith("_"):
                continue
            default = model.model_fields[name].get_default(call_default_factory=True)
            if isinstance(default, Table):
                named = model in (ProviderSettings, Settings)
                shown = "[below](#" + name + ")" if named else "as for the provider"
                shown = "[as such](#provider-settings)" if isinstance(default, ProviderSettings) else shown
            else:
                shown = written(default, UNITS.get(ast.unparse(field.annotation), ""))
            rows.append((f"`{name}`", shown, meaning))
    return table(*rows)


def events_table() -> str:
    """Return a table of all events."""
    rows = [("event", "says", "fields")]
    common = {field.name for field in dataclasses.fields(events.Event)}
    for name, kind in vars(events).items():
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event:
            own = [f"`{field.name}`" for field in dataclasses.fields(kind) if field.name not in common]
            rows.append((f"`{name}`", " ".join(inspect.getdoc(kind).split()), ", ".join(own)))
    return table(*rows)


def kinds_table() -> str:
    """Return a table of what each kind of failure means for whom."""
    rows = [("kind", "category", "retried", "circuit breaker", "gate", "adaptive limit", "throttle")]
    for kind in FailureKind:
        category = CATEGORIES[kind]
        failure = Failure(kind=kind, category=category, error_type="")
        took = accepted(failure)
        rows.append(
            (
                f"`{kind}`",
                str(category),
                "yes" if failure.retryable else "",
                VOTES[failure.verdict],
                closes_gate(failure),
                "falls" if kind in DROPS else "",
                "" if took is None else ("accepted" if took else "refused"),
            )
        )
    return table(*rows)


def closes_gate(failure: Failure) -> str:
    """Say when a failure closes the gate."""
    for hint, when in ((None, "closes"), (5.0, "closes, with a hint")):
        runtime = ProviderRegistry(Settings()).runtime("openai")
        runtime.obey(dataclasses.replace(failure, retry_after=hint), runtime.clock())
        if runtime.common.gate_left(runtime.clock()):
            return when
    return ""


def as_classified(kind: FailureKind) -> Category:
    """Return the category that a rule's bare kind gets."""
    return classify(RuntimeError(), rules=[lambda _: kind]).category


CATEGORIES = {kind: as_classified(kind) for kind in FailureKind}


def parts() -> dict[str, Callable[[], str]]:
    """Return every generated table of the page, by the heading it stands under."""
    found: dict[str, Callable[[], str]] = {
        "registry settings": partial(settings_table, Settings),
        "provider settings": partial(settings_table, ProviderSettings),
        "operations": partial(settings_table, OperationSettings),
        "experiments": partial(settings_table, ExperimentSettings),
        "retry.per_kind": partial(settings_table, RetryRule),
        "events": events_table,
        "kinds of failure": kinds_table,
    }
    for name, field in (*Settings.model_fields.items(), *ProviderSettings.model_fields.items()):
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Table) and not isinstance(default, ProviderSettings):
            found[name] = partial(settings_table, type(default))
    return found


def sections() -> dict[str, str]:
    """Return the text of the page under each of its headings."""
    found = re.split(r"^#+ (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading.strip("`").lower(): text for heading, text in zip(found[1::2], found[2::2], strict=True)}


def names_in(section: str) -> list[str]:
    """Return what the first column of a table names."""
    return re.findall(r"^\| `(\w+)` \|", sections()[section], flags=re.MULTILINE)


@pytest.mark.parametrize("heading", parts())
def test_a_table_says_what_the_code_says(heading: str) -> None:
    """Names, units, defaults and meanings on the page are those of the models, events and rules."""
    expected = parts()[heading]()
    assert expected in sections()[heading], f"the table under {heading!r} should be\n\n{expected}"


def test_every_reason_has_a_meaning() -> None:
    """The page explains every reason, and no other, in the order of the enum."""
    assert names_in("reasons") == [str(reason) for reason in Reason]


def test_every_option_has_a_meaning() -> None:
    """The page explains every option of `with_options`, and no other."""
    assert names_in("options") == list(ViewOptions.__annotations__)
