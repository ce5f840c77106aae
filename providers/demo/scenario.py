"""What the demo does: files arrive, each is uploaded, and what happens is written down."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

import anyio

from resilience import BreakerSettings, ProviderRegistry, ProviderSettings, ResilientProvider, Settings
from resilience.testing import EventRecorder, MisbehavingProvider, Misbehaviour

Upload: TypeAlias = Callable[[str, bytes], Awaitable[object]]
"""Uploads a file of that name and content, and raises if the provider did not confirm it."""

PROVIDER: Final = "uploads"
_SIZE: Final = 4096


@final
@dataclass(slots=True, kw_only=True)
class Job:
    """
    One file on its way.

    Args:
        name: The file's name.
        body: Its content.
        began: When it arrived, in seconds after the start of the pass; so are all times here.
        ended: When its upload succeeded or was given up.
        stored: Whether the provider confirmed it.
        attempts: How many requests were made for it.
        inside: How many seconds those requests took.
        outside: How many seconds everything around them took.
        refusals: How often we refused to make one.
        error: The class of the last error, if it was given up.
    """

    name: str
    body: bytes
    began: float
    ended: float = 0.0
    stored: bool = False
    attempts: int = 0
    inside: float = 0.0
    outside: float = 0.0
    refusals: int = 0
    error: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    How much is uploaded, and to whom.

    Args:
        duration: For how long files arrive, in seconds.
        rate: How many files arrive per second.
        behaviour: The provider's script.
    """

    duration: float
    rate: float
    behaviour: Misbehaviour

    @property
    def files(self) -> int:
        """How many files there are."""
        return max(1, round(self.duration * self.rate))


@final
@dataclass(slots=True, kw_only=True)
class Record:
    """What happened in one pass: unprotected if *settings* is None."""

    scenario: Scenario
    settings: ProviderSettings | None
    jobs: list[Job] = field(default_factory=list[Job])
    events: EventRecorder = field(default_factory=EventRecorder)


Watch: TypeAlias = Callable[[Record, float], None]
"""Is told how a pass is going, and what time it is, whenever a file is done."""


def misbehaviour(seed: int, duration: float) -> Misbehaviour:
    """The demo's script: about 85 % of unprotected uploads succeed."""
    return Misbehaviour(
        seed=seed,
        latency=0.04,
        tail=0.01,
        errors=0.025,
        resets=0.015,
        outages=((round(0.40 * duration, 3), round(0.50 * duration, 3)),),
        pauses=((round(0.70 * duration, 3), round(0.72 * duration, 3)),),
    )


def demo_settings(duration: float) -> ProviderSettings:
    """The default settings, but a minute of open circuit does not fit into a demo."""
    return ProviderSettings(breaker=BreakerSettings(timeout=duration / 20))


async def play(
    scenario: Scenario,
    site: MisbehavingProvider,
    upload: Upload,
    *,
    settings: ProviderSettings | None = None,
    watch: Watch | None = None,
) -> Record:
    """
    Let the files arrive, upload each, and tell what happened.

    It asks no clock but the site's, so it runs alike on real and on virtual time.

    Args:
        scenario: What arrives when.
        site: The provider; its script starts now.
        upload: How a file gets there.
        settings: How the uploads are protected. Default: not at all.
        watch: Is told of every file that is done. Default: nobody.
    """
    record = Record(scenario=scenario, settings=settings)
    site.start()
    way = _direct if settings is None else _protected(site, settings, record.events, scenario.behaviour.seed)
    carrier = _Carrier(record, site, upload, way, watch)
    async with anyio.create_task_group() as group:
        for number in range(scenario.files):
            await anyio.sleep(max(0.0, number / scenario.rate - site.now()))
            job = Job(name=f"file-{number:05}", body=_content(scenario, number), began=site.now())
            record.jobs.append(job)
            group.start_soon(carrier.carry, job)
    return record


_Attempt: TypeAlias = Callable[[], Awaitable[None]]
_Way: TypeAlias = Callable[[Job, _Attempt], Awaitable[None]]
"""How a file's attempts are made: at least one, and the last error comes out."""


@final
@dataclass(frozen=True, slots=True)
class _Carrier:
    record: Record
    site: MisbehavingProvider
    upload: Upload
    way: _Way
    watch: Watch | None

    async def carry(self, job: Job) -> None:
        now = self.site.now

        async def attempt() -> None:
            job.attempts += 1
            began = now()
            try:
                await self.upload(job.name, job.body)
            finally:
                job.inside += now() - began

        entered = now()
        try:
            await self.way(job, attempt)
            job.stored = True
        except Exception as error:
            job.error = type(error).__name__
        job.ended = now()
        job.outside = job.ended - entered - job.inside
        if self.watch is not None:
            self.watch(self.record, job.ended)


async def _direct(job: Job, attempt: _Attempt) -> None:  # noqa: ARG001 (a `_Way`)
    await attempt()


def _protected(site: MisbehavingProvider, settings: ProviderSettings, events: EventRecorder, seed: int) -> _Way:
    """Lead through `ResilientProvider`; a refused upload comes back when it was told to: nothing was sent yet."""
    rng = random.Random(seed)
    registry = ProviderRegistry(
        Settings(providers={PROVIDER: settings}), clock=site.now, wall_clock=site.now, rng=random.Random(seed)
    )
    registry.subscribe(events)
    period = settings.breaker.timeout

    async def way(job: Job, attempt: _Attempt) -> None:
        provider = ResilientProvider(PROVIDER, registry=registry)
        while (outcome := await provider.try_execute(attempt)).rejected:
            job.refusals += 1
            # At the next chance, which a probe under way may bring early; and not all of them at once.
            await anyio.sleep(min(outcome.retry_after or period, period) + rng.uniform(0.0, period))
        outcome.unwrap()

    return way


def _content(scenario: Scenario, number: int) -> bytes:
    return random.Random(f"{scenario.behaviour.seed}/{number}").randbytes(_SIZE)
