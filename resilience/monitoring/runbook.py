"""What whoever gets an alert needs to know."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from resilience.monitoring.rules import ALERTS, Alert

_WIDTH: Final = 118


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """
    What the runbook says about one alert. Words in italics are panels of the dashboard.

    Args:
        meaning: What has happened.
        doing: What the framework is doing about it by itself.
        look: What to look at to find out why.
        act: What to do.
    """

    meaning: str
    doing: str
    look: str
    act: str


PAGES: Final = {
    "CircuitOpen": Page(
        meaning=(
            "So many attempts failed, or were so slow, that sending more would only keep callers waiting. One short "
            "opening does not alert: this one lasts, or comes back with every probe."
        ),
        doing=(
            "It refuses calls at once with `CircuitOpen` (fallbacks, where there are any, take over), waits for the "
            "open time (60 s by default), lets single probes through, and closes after two that succeed. Nothing has "
            "to be reset."
        ),
        look=(
            "*Calls failed, by kind*: `connection_error` and `dns_error` speak of the network, `timeout` of a "
            "provider that hangs, `server_error` of one that is broken, `certificate_error` of a date. *State of the "
            "circuits* tells since when, and whether other providers have it too: then it is your own network. "
            "`resilience explain` tells what opened it, with figures. Look at the provider's own status page."
        ),
        act=(
            "If only this provider is down: tell its users, and send traffic elsewhere (a fallback, a pool, a feature "
            "switch). If the provider is fine and the figures say otherwise, look for what changed on your side: "
            "keys, proxies, certificates, a deployment. Do not raise the threshold during an incident. "
            "`provider.breaker.close()` closes the circuit by hand once you know better than it does."
        ),
    ),
    "HealthFailing": Page(
        meaning="A check of the application's health has failed for longer than its grace period.",
        doing=(
            "It goes on checking, at most once per interval, and answers `/health/ready` with 503 if the component is "
            "critical, so that the orchestrator sends traffic to other processes."
        ),
        look=(
            "`/health` of the process: every component with its status and reason, and how the whole follows from "
            "them. *Health of the components* tells since when, and how many components have it."
        ),
        act=(
            "Follow the reason: for a provider that is what its circuit says. If the check itself is at fault (it "
            "hangs, it asks too much), mend the check: mark it not critical until then, so that it takes no processes "
            "out of service."
        ),
    ),
    "CircuitFlapping": Page(
        meaning=(
            "The provider answers single probes and fails under load: it is overloaded, half of it is down, or it "
            "answers cheap requests only."
        ),
        doing="It opens and probes again each time. With `breaker.growth` above 1 the open time grows with every trip.",
        look=(
            "*Changes of the circuits' states* for the rhythm, *Calls failed, by kind* for what opens it, *How long "
            "attempts take* for whether the provider slows down before it fails."
        ),
        act=(
            "Let recovery be slower: raise `breaker.success_threshold`, set `breaker.growth` to 2. Send less: an "
            "adaptive limit (`bulkhead.adaptive`) or `throttle` finds what the provider can take. If one kind of "
            "request fails and others do not, give it an endpoint of its own, with its own circuit."
        ),
    ),
    "RetryStorm": Page(
        meaning="More than one call in ten is tried again: meant for single faults, it has become a load of its own.",
        doing=(
            "It backs off with jitter, so that retries do not come in waves, and holds them within the retry budget. "
            "Errors that retries cannot help are not retried."
        ),
        look=(
            "*What followed failed attempts*: which kinds are retried. *Calls by outcome*: if success after retry is "
            "as high as the retries are, they help; if failure is, they do not. Look for retries of others around or "
            "below ours: an SDK's own multiply with them."
        ),
        act=(
            "Switch off the retries of SDKs (`max_retries=0`). For a kind that retries do not help, set "
            "`retry.per_kind.<kind>.max_attempts` to 1. Lower `budget.ratio` while the provider recovers."
        ),
    ),
    "ExcessiveTimeouts": Page(
        meaning="The provider hangs or is too slow for the time that an attempt is given.",
        doing=(
            "It interrupts the attempts, counts them as failures (they may open the circuit), and retries where the "
            "call is idempotent and its deadline leaves time for it."
        ),
        look=(
            "*How long attempts take*: if p99 lies at the limit and p50 far below, single requests are slow; if both "
            "rise, all of the provider is. *Calls under way*: if they pile up, callers wait too."
        ),
        act=(
            "If what is asked for has grown (longer prompts, larger files), raise `timeout.attempt`, for that "
            "operation only. If single requests are slow and idempotent, hedge them. If all are slow, lower "
            "`timeout.attempt` so that callers learn it sooner, and send less."
        ),
    ),
    "RetryBudgetExhausted": Page(
        meaning=(
            "So much fails that retrying all of it would harm the provider. Callers see errors that a retry might help."
        ),
        doing="It retries only as much as the budget allows, and gives the first error to the other callers at once.",
        look=(
            "*Retries that the budget allows* and *What followed failed attempts*. If the circuit stays closed "
            "meanwhile, failures are too few, or of kinds that are no evidence."
        ),
        act=(
            "Treat the failures, not the budget. If there are few calls, and each matters, raise "
            "`budget.floor_per_second` or `budget.floor_burst`."
        ),
    ),
    "HighRejection": Page(
        meaning=(
            "A limit of ours refuses calls before they leave. The reason names it: `bulkhead_full`, "
            "`bulkhead_timeout` (too many at once), `pending_full`, `shed` (too many wait), `rate_limited`, "
            "`rate_oversized`, `throttled`, `cost_budget_exhausted`, `forced_open` (by hand)."
        ),
        doing=(
            "It refuses at once, or after the time that callers may wait, and tells them when to come back where it "
            "knows."
        ),
        look=(
            "*Calls refused, by reason*, then the panel of that limit under *Limits*: is the limit reached because "
            "more is asked for (*Calls a second*), or because each attempt takes longer (*How long attempts take*)?"
        ),
        act=(
            "If more is asked for than was planned, and the provider can take it, raise the limit; `mode: shadow` "
            "shows first what would be refused. If attempts take longer, treat that. Mark what can wait as sheddable, "
            "so that what matters gets through. `forced_open`: ask who opened it; `provider.breaker.reset()` ends it."
        ),
    ),
    "GateClosedLong": Page(
        meaning="The provider answers 429, or 503 with `Retry-After`: a quota is spent, or it sheds load.",
        doing=(
            "It sends nothing while the gate is closed. Callers wait up to `gate.max_wait`, and are then refused with "
            "`ProviderGated`, which says when to come back. The circuit stays closed: this is no outage."
        ),
        look=(
            "*Gates closed*: hinted, or guessed. *Calls failed, by kind*: `rate_limit`, `overloaded`, "
            "`quota_exhausted`. *Left of the rate limits*, if the provider tells. Who else uses the same key?"
        ),
        act=(
            "Send less than the quota: set `rate_limit` to it, so that calls line up here instead of being refused "
            "there. Ask for a higher quota, or spread over keys, regions or providers. `quota_exhausted` is not "
            "mended by waiting."
        ),
    ),
    "SlowCalls": Page(
        meaning="More than half of the calls in the circuit's window took longer than `breaker.slow_after`.",
        doing=(
            "It counts them as evidence. At `breaker.slow_rate` the circuit opens, so that callers do not wait in vain."
        ),
        look=(
            "*What the circuits see*, and *How long attempts take* since when; *Calls under way* for a load of our own."
        ),
        act=(
            "If the provider has become slower for good, raise `breaker.slow_after`; if it is a bad day, send less, "
            "or send what can be sent elsewhere before the circuit opens."
        ),
    ),
    "FailuresRising": Page(
        meaning="A kind of failure that was rare, or new, has become frequent.",
        doing=(
            "It retries what retries can help. Kinds that are no evidence against the provider (`bad_request`, "
            "`not_found`, `authentication_error`, `permission_denied`) are counted and passed on: no circuit opens "
            "for them."
        ),
        look=(
            "*Calls failed, by kind*: since when? Compare with deployments, theirs and yours. The log has each "
            "failure with its operation, status and code."
        ),
        act=(
            "`authentication_error`, `permission_denied`: a key has expired or was changed. `bad_request`, "
            "`not_found`: a release of yours, or theirs, changed the requests. `configuration_error`, "
            "`certificate_error`: mend them, waiting does not. The others are the provider's: see "
            "[CircuitOpen](#circuitopen)."
        ),
    ),
}
"""By the names of the alerts."""


_INTRODUCTION: Final = (
    "# Alerts",
    "",
    "What each alert means, and what to do. This page is made by `nox -s pages` from the same source as the rules that",
    "`resilience alerts` writes; words in italics are panels of [the dashboard](dashboard.md).",
    "",
    "| alert | severity | in a line |",
    "|---|---|---|",
    *(f"| [{alert.name}](#{alert.anchor}) | {alert.severity} | {alert.about} |" for alert in ALERTS),
)


def runbook() -> str:
    """Return the runbook, as a page of Markdown; its anchors are those that the alerts point to."""
    return "\n".join([*_INTRODUCTION, *(line for alert in ALERTS for line in _chapter(alert))]) + "\n"


def _chapter(alert: Alert) -> Iterator[str]:
    page = PAGES[alert.name]
    yield from ("", f"## {alert.name}", "")
    yield f"{alert.severity.capitalize()}, when for {alert.lasting} this has been true:"
    yield from ("", "```promql", alert.query, "```")
    yield from _paragraph("What it means.", page.meaning)
    yield from _paragraph("What the framework is doing about it.", page.doing)
    yield from _paragraph("What to look at.", page.look)
    yield from _paragraph("What to do.", page.act)


def _paragraph(title: str, text: str) -> Iterator[str]:
    yield ""
    yield textwrap.fill(f"**{title}** {text}", _WIDTH, break_long_words=False, break_on_hyphens=False)
