"""`Failure`: the facts about an error, and nothing that must not leave the process."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest

from resilience.failure import Category, Delivery, Failure, FailureKind, Verdict

KINDS = {
    # kind: (verdict, public message)
    "timeout": ("failure", "The service took too long to answer. Please try again."),
    "connection_error": ("failure", "The service could not be reached. Please try again."),
    "rate_limit": ("ignored", "The service is busy. Please try again in a moment."),
    "authentication_error": (
        "success",
        "The request could not be completed. Please contact support if this goes on.",
    ),
    "permission_denied": ("success", "The request could not be completed. Please contact support if this goes on."),
    "not_found": ("success", "What was asked for does not exist."),
    "bad_request": ("success", "The request was not accepted. Please check your input."),
    "server_error": ("failure", "The service had an internal problem. Please try again later."),
    "unknown_error": ("failure", "The request could not be completed. Please contact support if this goes on."),
    "dns_error": ("failure", "The service could not be found on the network. Please try again later."),
    "certificate_error": ("failure", "The request could not be completed. Please contact support if this goes on."),
    "configuration_error": ("ignored", "The request could not be completed. Please contact support if this goes on."),
    "quota_exhausted": ("ignored", "The request could not be completed. Please contact support if this goes on."),
    "overloaded": ("failure", "The service is overloaded. Please try again in a moment."),
    "interrupted": ("failure", "The answer was cut short. Please try again."),
    "cancelled": ("ignored", "The request was cancelled."),
    "rejected": ("ignored", "The service is temporarily unavailable. Please try again later."),
}


def make(kind: str = "server_error", **facts: object) -> Failure:
    facts = {"category": Category.RETRIABLE, "error_type": "httpx.ReadError", **facts}
    return Failure(kind=FailureKind(kind), **facts)


def test_all_kinds() -> None:
    """The kinds are these, for ever: they are values of a metric's attribute."""
    assert [kind.value for kind in FailureKind] == list(KINDS)
    assert [category.value for category in Category] == ["retriable", "transient", "fatal", "invalid_input"]
    assert [delivery.value for delivery in Delivery] == ["unsent", "maybe", "processed"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_says_about_the_provider(kind: str) -> None:
    """Each kind is evidence for or against the provider, or none; an error may say otherwise."""
    verdict, _ = KINDS[kind]
    assert make(kind).verdict is Verdict(verdict)
    for said in Verdict:
        assert make(kind, evidence=said).verdict is said


@pytest.mark.parametrize(
    "category, retryable", [("retriable", 1), ("transient", 1), ("fatal", 0), ("invalid_input", 0)]
)
def test_retryable(category: str, retryable: int) -> None:
    """Two categories are worth another attempt."""
    assert make(category=Category(category)).retryable is bool(retryable)


@pytest.mark.parametrize("kind", KINDS)
def test_public_messages(kind: str) -> None:
    """The message for end users depends on the kind alone, so it can leak nothing."""
    _, message = KINDS[kind]
    failure = make(
        kind,
        error_type="internal.SecretError",
        status=503,
        code="sk-secret",
        retry_after=17.0,
        provider="internal-vendor",
        operation="charge-card",
    )
    assert failure.public_message == make(kind).public_message == message
    assert not any(character.isdigit() for character in message)


def test_defaults() -> None:
    """What nobody said is unknown."""
    assert dataclasses.asdict(make()) == {
        "kind": "server_error",
        "category": "retriable",
        "error_type": "httpx.ReadError",
        "delivery": "maybe",
        "status": None,
        "code": None,
        "retry_after": None,
        "evidence": None,
        "provider": "",
        "operation": "",
        "attempts": 0,
        "time": 0.0,
    }


def test_it_is_frozen() -> None:
    """A failure does not change; it can be compared, hashed and has no place for anything else."""
    failure = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.status = 500
    assert failure == make()
    assert hash(failure) == hash(make())
    assert not hasattr(failure, "__dict__")
    with pytest.raises(TypeError):
        Failure(FailureKind.TIMEOUT, Category.RETRIABLE, "positional")


def test_attribution() -> None:
    """The call that a failure belongs to is filled into a copy."""
    failure = make(status=500)
    own = failure.attributed(provider="s3", operation="put", attempts=2, time=5.0)
    assert (own.provider, own.operation, own.attempts, own.time, own.status) == ("s3", "put", 2, 5.0, 500)
    assert failure.provider == ""


@pytest.mark.parametrize("make_twin", [copy.copy, copy.deepcopy, lambda failure: pickle.loads(pickle.dumps(failure))])
def test_it_travels(make_twin: object) -> None:
    """A failure can be copied and pickled."""
    failure = make("rate_limit", status=429, retry_after=2.5, evidence=Verdict.IGNORED, delivery=Delivery.PROCESSED)
    twin = make_twin(failure)
    assert twin == failure
    assert (type(twin.kind), twin.verdict) == (FailureKind, Verdict.IGNORED)


def test_it_is_ready_for_json() -> None:
    """Its kinds and categories are text wherever text is wanted."""
    failure = make("rate_limit")
    assert json.dumps([failure.kind, failure.category, failure.delivery]) == '["rate_limit", "retriable", "maybe"]'
    assert f"{failure.kind}" == "rate_limit"
    assert failure.kind == "rate_limit"
