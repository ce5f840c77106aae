"""The bus that carries events: who hears what, in which order, and who harms nobody."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import logging
import pickle
import weakref

import pytest

from resilience import events, subscribe
from resilience.events import (
    AttemptFailed,
    CallRecovered,
    CallWasRejected,
    CallWouldBeRejected,
    Event,
    EventBus,
    ProbeLost,
    process_bus,
)


def lost(provider: str = "openai") -> ProbeLost:
    return ProbeLost(provider=provider, time=5.0)


def recovered() -> CallRecovered:
    return CallRecovered(provider="openai", time=5.0, attempts=2, duration=1.0)


def test_an_event_is_a_frozen_fact() -> None:
    """Events are frozen, compared by their facts, given by name, and can be pickled."""
    event = recovered()
    assert event == recovered()
    assert event != lost()
    assert event.operation == ""
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.attempts = 3
    with pytest.raises(TypeError):
        ProbeLost("openai", "", 5.0)


def test_every_event_is_slotted_and_documented() -> None:
    """Every kind of event has slots and says what happened."""
    kinds = [thing for thing in vars(events).values() if inspect.isclass(thing) and issubclass(thing, Event)]
    assert len(kinds) == 24
    for kind in kinds:
        assert "__slots__" in vars(kind)
        assert kind.__doc__
        assert not kind.__doc__.startswith(kind.__name__)


def test_in_the_order_of_subscription() -> None:
    """Listeners are told one after the other, in the order in which they came, the nearest bus first."""
    above = EventBus()
    bus, heard = EventBus(above), []
    above.subscribe(lambda event: heard.append("above"))
    bus.subscribe(lambda event: heard.append("first"))
    bus.subscribe(lambda event: heard.append("second"))
    bus.emit(lost())
    assert heard == ["first", "second", "above"]


def test_upwards_only() -> None:
    """An event goes up to the parents, never down or sideways."""
    root = EventBus()
    left, right = EventBus(root), EventBus(root)
    leaf = EventBus(left)
    heard: list[str] = []
    for name, bus in {"root": root, "left": left, "right": right, "leaf": leaf}.items():
        bus.subscribe(lambda event, name=name: heard.append(name))
    for bus, expected in ((leaf, ["leaf", "left", "root"]), (left, ["left", "root"]), (root, ["root"])):
        heard.clear()
        bus.emit(lost())
        assert heard == expected


def test_who_comes_later_is_heard_below() -> None:
    """A listener that subscribes above, or leaves, after the buses below were made counts there as well."""
    root = EventBus()
    leaf, heard = EventBus(EventBus(root)), []
    assert not leaf.hears(ProbeLost)
    end = root.subscribe(heard.append)
    assert leaf.hears(ProbeLost)
    leaf.emit(lost())
    end()
    leaf.emit(lost())
    assert len(heard) == 1
    assert not leaf.hears(ProbeLost)


def test_kinds() -> None:
    """A listener hears the kinds it asked for and what derives from them; without any it hears all."""
    bus, some, all_, base = EventBus(), [], [], []
    bus.subscribe(some.append, ProbeLost, CallWasRejected)
    bus.subscribe(all_.append)
    bus.subscribe(base.append, Event)
    for event in (lost(), recovered()):
        bus.emit(event)
    assert (some, all_, base) == ([lost()], [lost(), recovered()], [lost(), recovered()])


def test_hears() -> None:
    """A bus knows whether anybody wants a kind, so that what nobody wants need not be made."""
    bus = EventBus()
    assert not bus.hears(AttemptFailed)
    end = bus.subscribe(print, AttemptFailed)
    assert bus.hears(AttemptFailed)
    assert not bus.hears(CallWouldBeRejected)
    assert not bus.hears_rejections
    bus.subscribe(print, CallWasRejected)
    assert bus.hears_rejections
    end()
    assert not bus.hears(AttemptFailed)


def test_a_subscription_ends_once() -> None:
    """Ending a subscription ends that one, and ending it again does nothing."""
    bus, heard = EventBus(), []
    first = bus.subscribe(heard.append)
    bus.subscribe(heard.append)
    first()
    first()
    bus.emit(lost())
    assert len(heard) == 1


def test_leaving_while_being_told() -> None:
    """A listener may leave, or others may come, while an event is being told."""
    bus, heard = EventBus(), []

    def once(event: Event) -> None:
        end()
        heard.append("once")
        bus.subscribe(lambda _: heard.append("new"))

    end = bus.subscribe(once)
    bus.subscribe(lambda _: heard.append("other"))
    bus.emit(lost())
    assert heard == ["once", "other"]
    bus.emit(lost())
    assert heard == ["once", "other", "other", "new"]


def test_a_listener_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises is logged with its traceback and the provider's name; the others are told as usual."""
    bus, heard = EventBus(), []

    def fail(event: Event) -> None:
        raise RuntimeError("the dashboard is down")

    bus.subscribe(fail)
    bus.subscribe(heard.append)
    with caplog.at_level(logging.ERROR, logger="resilience.events"):
        bus.emit(lost("s3"))
    [record] = caplog.records
    assert (record.getMessage(), record.provider, record.component) == ("a listener failed", "s3", "events")
    assert record.exc_info is not None
    assert heard == [lost("s3")]


def test_what_is_no_error_is_not_held_up() -> None:
    """An interrupt in a listener is not swallowed."""
    bus = EventBus()

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    bus.subscribe(interrupt)
    with pytest.raises(KeyboardInterrupt):
        bus.emit(lost())


@pytest.mark.parametrize("listener", [None, "print", 5])
def test_who_cannot_listen(listener: object) -> None:
    """What cannot be called is refused where it subscribes."""
    with pytest.raises(TypeError) as caught:
        EventBus().subscribe(listener)
    assert str(caught.value) == f"a listener is a function that takes one event, not {listener!r}"


@pytest.mark.parametrize("kind", [ValueError, "ProbeLost", lost()])
def test_what_is_no_kind(kind: object) -> None:
    """What is no class of events is refused as well, and nothing is subscribed."""
    bus = EventBus()
    with pytest.raises(TypeError) as caught:
        bus.subscribe(print, ProbeLost, kind)
    assert str(caught.value) == f"a listener asks for classes of events, such as CircuitChanged, not {kind!r}"
    assert not bus.hears(ProbeLost)


def test_the_process_hears_everything() -> None:
    """`subscribe` listens to every bus below the process's own."""
    bus, heard = EventBus(EventBus(process_bus)), []
    end = subscribe(heard.append, ProbeLost)
    bus.emit(lost())
    end()
    bus.emit(lost())
    assert heard == [lost()]


def test_a_bus_is_forgotten() -> None:
    """A parent does not keep the buses below it alive."""
    root = EventBus()
    leaf = weakref.ref(EventBus(root))
    gc.collect()
    assert leaf() is None
    root.subscribe(print)
