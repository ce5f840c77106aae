"""A forked worker starts clean, whatever its parent was doing; the parent goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from functools import cache
from typing import Any

import pytest

from resilience import (
    BreakerSettings,
    CircuitBreaker,
    ProviderRegistry,
    ProviderSettings,
    RetrySettings,
    Settings,
    process,
)
from resilience import registry as registry_module
from resilience.policies import _forks

# One process runs all scenes, so that the package is loaded once: each scene forks, and says what both sides saw.
STAGE = textwrap.dedent(
    '''
    import asyncio, json, multiprocessing, os, signal, sys, threading, traceback
    from contextlib import contextmanager

    from resilience import *
    from resilience import registry as registry_module

    SCENES = {}


    def scene(function):
        SCENES[function.__name__] = function


    def provider(name="s3", **settings):
        given = ProviderSettings(retry=RetrySettings(enabled=False), **settings)
        return ProviderRegistry(Settings(defaults=given)).provider(name)


    async def ok():
        return "fine"


    async def fail():
        raise ConnectionError


    def trip(one, run=asyncio.run):
        async def main():
            for _ in range(5):
                await one.try_execute(fail)
        run(main())


    def figures(one):
        now = one.snapshot()
        return {"state": now.breaker.state, "failed": now.breaker.failed, "row": now.breaker.failures_in_a_row,
                "calls": now.calls, "in_flight": now.in_flight, "rejected": now.rejected,
                "lanes": len(one._runtime.lanes)}


    def in_child(function):
        """Fork, run *function* in the child, and return what it returned there."""
        read, write = os.pipe()
        if not (child := os.fork()):
            signal.alarm(30)  # a deadlock ends here
            try:
                answer = function()
            except BaseException:
                answer = traceback.format_exc()
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
        os.close(write)
        with open(read) as pipe:
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        return json.loads(text) if text else f"the child died with status {status}"


    @contextmanager
    def held_by_another_thread(lock):
        held, done = threading.Event(), threading.Event()

        def hold():
            with lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        yield
        done.set()
        thread.join()


    @scene
    def open_circuit():
        one = provider()
        trip(one)
        asyncio.run(one.try_execute(ok))

        def child():
            before = figures(one)
            answer = asyncio.run(one.execute(ok))
            return {"before": before, "answer": answer, "after": figures(one)}

        return {"parent before": figures(one), "child": in_child(child), "parent after": figures(one)}


    @scene
    def opened_by_hand():
        one = provider()
        one.breaker.open()
        return {"child": in_child(lambda: one.breaker.state), "parent": one.breaker.state}


    @scene
    def forced_by_settings():
        one = provider(breaker=BreakerSettings(mode="forced_open"))
        return in_child(lambda: [one.breaker.state, asyncio.run(one.try_execute(ok)).reason])


    @scene
    def closed_gate():
        class Busy(Exception):
            status_code = 429
            headers = {"retry-after": "100"}

        async def busy():
            raise Busy

        one = provider()
        asyncio.run(one.try_execute(busy))
        left = lambda: one.snapshot().gate_closed_for > 0
        return {"parent": left(), "child": in_child(lambda: [left(), asyncio.run(one.execute(ok))]), "after": left()}


    @scene
    def locks():
        one, alone, answers = provider(), CircuitBreaker("alone"), {}
        registry = ProviderRegistry()
        uses = {
            "provider": (one.breaker.lock, lambda: figures(one)["state"]),
            "registry": (registry._lock, lambda: repr(registry.provider("new").breaker.state)),
            "default": (registry_module._default_lock, lambda: repr(ResilientProvider("new").breaker.state)),
            "breaker": (alone.lock, lambda: alone.snapshot().state),
        }
        for name, (lock, use) in uses.items():
            with held_by_another_thread(lock):
                answers[name] = in_child(use)
        return answers


    @scene
    def lonely_breaker():
        one = CircuitBreaker("s3", BreakerSettings(failure_threshold=1))

        async def main():
            try:
                await one.call(fail)
            except ConnectionError:
                pass

        asyncio.run(main())
        return {"child": in_child(lambda: [one.state, asyncio.run(one.call(ok))]), "parent": one.state}


    @scene
    def same_loop():
        """The loop is not running at the fork, and the child goes on with it."""
        one, loop = provider(), asyncio.new_event_loop()
        for _ in range(3):
            loop.run_until_complete(one.execute(ok))

        def child():
            before = figures(one)
            trip(one, loop.run_until_complete)
            return {"before": before, "after": figures(one),
                    "reason": loop.run_until_complete(one.try_execute(ok)).reason}

        answer = {"child": in_child(child), "parent": loop.run_until_complete(one.execute(ok)), "figures": figures(one)}
        loop.close()
        return answer


    @scene
    def during_a_call():
        one = provider()

        def child():
            before = figures(one)
            trip(one)
            return {"before": before, "after": figures(one)}

        async def fork_here():
            return {"child": in_child(child), "during": figures(one)}

        return asyncio.run(one.execute(fork_here)) | {"after": figures(one)}


    def work(name, results):
        one = ResilientProvider(name)
        trip(one.with_options(retry=False))
        results.put([os.getpid(), one.breaker.state, one.snapshot().calls])


    @scene
    def worker_processes():
        one = ResilientProvider("shared")
        trip(one.with_options(retry=False))
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        workers = [context.Process(target=work, args=("shared", results)) for _ in range(3)]
        for worker in workers:
            worker.start()
        answers = [results.get()[1:] for _ in workers]
        for worker in workers:
            worker.join()
        return {"workers": answers, "codes": [worker.exitcode for worker in workers], "parent": one.snapshot().calls}


    print(json.dumps({name: function() for name, function in SCENES.items()}))
    '''
)


@cache
def played() -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", STAGE],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    scenes: dict[str, Any] = json.loads(run.stdout)
    return scenes


NEW = {"state": "closed", "calls": 0, "in_flight": 0, "failed": 0, "row": 0, "rejected": 0, "lanes": 0}


def test_a_child_of_a_process_with_an_open_circuit_starts_closed() -> None:
    """It knows nothing of its parent's failures, and its calls go through; the parent's circuit stays open."""
    seen = played()["open_circuit"]
    assert seen["child"]["before"] == NEW
    assert (seen["child"]["answer"], seen["child"]["after"]["calls"]) == ("fine", 1)
    assert seen["parent before"]["state"] == "open"
    assert seen["parent after"] == seen["parent before"]


def test_what_an_operator_did_in_the_parent_is_not_carried_over() -> None:
    """It was about that process; what the settings ask for holds in the child too."""
    assert played()["opened_by_hand"] == {"child": "closed", "parent": "forced_open"}
    assert played()["forced_by_settings"] == ["forced_open", "forced_open"]


def test_a_closed_gate_is_open_in_the_child() -> None:
    """The provider's request for a pause went to the parent."""
    assert played()["closed_gate"] == {"parent": True, "child": [False, "fine"], "after": True}


@pytest.mark.parametrize("lock", ["provider", "registry", "default", "breaker"])
def test_no_lock_stays_locked(lock: str) -> None:
    """A thread of the parent that held a lock at the fork does not exist in the child: nobody waits for it."""
    assert played()["locks"][lock] in ("closed", "<CircuitState.CLOSED: 'closed'>")


def test_a_breaker_of_its_own_starts_clean_too() -> None:
    """Without a provider around it."""
    assert played()["lonely_breaker"] == {"child": ["closed", "fine"], "parent": "open"}


def test_a_child_may_go_on_with_its_parents_loop() -> None:
    """Handles that were on the fast path notice what happens in the child."""
    seen = played()["same_loop"]
    assert seen["child"]["before"] == NEW
    assert (seen["child"]["after"]["state"], seen["child"]["after"]["calls"]) == ("open", 5)
    assert seen["child"]["reason"] == "circuit_open"
    assert (seen["parent"], seen["figures"]["calls"], seen["figures"]["state"]) == ("fine", 4, "closed")


def test_a_fork_in_the_middle_of_a_call() -> None:
    """In the child that call does not exist; in the parent it ends as it would have."""
    seen = played()["during_a_call"]
    assert seen["child"]["before"] == NEW
    assert (seen["child"]["after"]["state"], seen["child"]["after"]["calls"]) == ("open", 5)
    assert (seen["during"]["in_flight"], seen["during"]["state"]) == (1, "closed")
    assert (seen["after"]["in_flight"], seen["after"]["calls"], seen["after"]["state"]) == (0, 1, "closed")


def test_worker_processes_have_a_state_each() -> None:
    """Three workers forked by multiprocessing count and open on their own, on the registry from the environment."""
    assert played()["worker_processes"] == {"workers": [["open", 5]] * 3, "codes": [0] * 3, "parent": 5}


async def read(registry: ProviderRegistry) -> None:
    registry.provider("s3")
    CircuitBreaker("alone", clock=asyncio.get_running_loop().time)


def test_starting_anew_in_place() -> None:
    """What a child does first: everything in this process is as new, whatever state it is in."""
    settings = ProviderSettings(breaker=BreakerSettings(failure_threshold=1), retry=RetrySettings(enabled=False))
    limits = {"bulkhead": {"max_concurrent": 5}, "rate_limit": {"requests_per_minute": 5}}
    registry = ProviderRegistry(Settings(defaults=settings.model_copy(update=limits)))
    one, alone = registry.provider("s3"), CircuitBreaker("alone")
    on_a_loop = ProviderRegistry(clock=lambda: asyncio.get_running_loop().time())  # a clock that has stopped by then
    asyncio.run(read(on_a_loop))

    async def fail() -> None:
        raise ConnectionError

    asyncio.run(one.try_execute(fail))
    alone.open()
    locks = [one.breaker.lock, registry._lock, registry_module._default_lock, alone.lock]
    for start_anew in (
        _forks.start_anew,
        process._start_anew_after_fork,
        registry_module._unlock_after_fork,
    ):
        start_anew()
    assert (one.breaker.state, alone.state, one.snapshot().calls) == ("closed", "closed", 0)
    assert one.snapshot().rate_limit.windows[0].remaining == 5
    assert one._runtime.limits.rate.lock is one._runtime.limits.bulkhead.lock is one.breaker.lock  # shared again
    after = [one.breaker.lock, registry._lock, registry_module._default_lock, alone.lock]
    assert not any(lock is before for lock, before in zip(after, locks, strict=True))
    assert one.breaker.lock is registry.runtime("s3").common.lock
