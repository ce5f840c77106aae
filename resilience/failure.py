"""What went wrong with a call, in words that every policy, event and log shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from resilience._core.words import Verdict as Verdict


class FailureKind(StrEnum):
    """What kind of trouble a failure is. The values are stable: they are metric attributes."""

    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"
    RATE_LIMIT = "rate_limit"
    AUTHENTICATION_ERROR = "authentication_error"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    SERVER_ERROR = "server_error"
    UNKNOWN_ERROR = "unknown_error"
    DNS_ERROR = "dns_error"
    CERTIFICATE_ERROR = "certificate_error"
    CONFIGURATION_ERROR = "configuration_error"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class Category(StrEnum):
    """
    What a caller can do about a failure.

    *retriable*: try again after a back-off. *transient*: try again, but later, as the provider asked for
    patience. *fatal*: trying again cannot help. *invalid_input*: the request itself is wrong.
    """

    RETRIABLE = "retriable"
    TRANSIENT = "transient"
    FATAL = "fatal"
    INVALID_INPUT = "invalid_input"


class Delivery(StrEnum):
    """
    Whether the provider can have seen the request.

    *unsent*: surely not, so repeating it is safe whatever it does. *maybe*: unknown. *processed*: the
    provider answered.
    """

    UNSENT = "unsent"
    MAYBE = "maybe"
    PROCESSED = "processed"


# A provider that answers "no" is reachable: refusals of this one request are no evidence against it.
# A rate limit closes the gate, which is not the breaker, and is no evidence for it.
_VERDICTS = {
    FailureKind.TIMEOUT: Verdict.FAILURE,
    FailureKind.CONNECTION_ERROR: Verdict.FAILURE,
    FailureKind.DNS_ERROR: Verdict.FAILURE,
    FailureKind.CERTIFICATE_ERROR: Verdict.FAILURE,
    FailureKind.SERVER_ERROR: Verdict.FAILURE,
    FailureKind.OVERLOADED: Verdict.FAILURE,
    FailureKind.INTERRUPTED: Verdict.FAILURE,
    FailureKind.UNKNOWN_ERROR: Verdict.FAILURE,
    FailureKind.AUTHENTICATION_ERROR: Verdict.SUCCESS,
    FailureKind.PERMISSION_DENIED: Verdict.SUCCESS,
    FailureKind.NOT_FOUND: Verdict.SUCCESS,
    FailureKind.BAD_REQUEST: Verdict.SUCCESS,
    FailureKind.RATE_LIMIT: Verdict.IGNORED,
    FailureKind.QUOTA_EXHAUSTED: Verdict.IGNORED,
    FailureKind.CONFIGURATION_ERROR: Verdict.IGNORED,
    FailureKind.CANCELLED: Verdict.IGNORED,
    FailureKind.REJECTED: Verdict.IGNORED,
}

_PUBLIC_MESSAGES = {
    FailureKind.TIMEOUT: "The service took too long to answer. Please try again.",
    FailureKind.CONNECTION_ERROR: "The service could not be reached. Please try again.",
    FailureKind.DNS_ERROR: "The service could not be found on the network. Please try again later.",
    FailureKind.RATE_LIMIT: "The service is busy. Please try again in a moment.",
    FailureKind.OVERLOADED: "The service is overloaded. Please try again in a moment.",
    FailureKind.SERVER_ERROR: "The service had an internal problem. Please try again later.",
    FailureKind.INTERRUPTED: "The answer was cut short. Please try again.",
    FailureKind.NOT_FOUND: "What was asked for does not exist.",
    FailureKind.BAD_REQUEST: "The request was not accepted. Please check your input.",
    FailureKind.CANCELLED: "The request was cancelled.",
    FailureKind.REJECTED: "The service is temporarily unavailable. Please try again later.",
}
_PUBLIC_FALLBACK = "The request could not be completed. Please contact support if this goes on."


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    One classified error.

    It holds facts, never the error's own text, its payload or its URL, so it is safe to log and to pickle.

    Args:
        kind: What kind of trouble it was.
        category: What a caller can do about it.
        error_type: The class of the error, such as ``"httpx.ConnectError"``.
        delivery: Whether the provider can have seen the request. Default: `Delivery.MAYBE`.
        status: The HTTP status, if there was one.
        code: The provider's own short error code, such as ``"insufficient_quota"``, if there was one.
        retry_after: How many seconds the provider told us to stay away, or None.
        evidence: What it says to the circuit breaker; None (default) takes the kind's usual verdict.
        provider: The provider's name. Filled in by the provider that made the call.
        operation: The operation's name. Filled in likewise.
        attempts: How many attempts had been made, this one included. Filled in likewise.
        time: When it was noticed, in seconds since the Unix epoch. Filled in likewise.
    """

    kind: FailureKind
    category: Category
    error_type: str
    delivery: Delivery = Delivery.MAYBE
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    evidence: Verdict | None = None
    provider: str = ""
    operation: str = ""
    attempts: int = 0
    time: float = 0.0

    @property
    def retryable(self) -> bool:
        """Whether trying again can help at all."""
        return self.category is Category.RETRIABLE or self.category is Category.TRANSIENT

    @property
    def verdict(self) -> Verdict:
        """What this failure says about the provider's health."""
        return self.evidence if self.evidence is not None else _VERDICTS[self.kind]

    @property
    def public_message(self) -> str:
        """A sentence that is safe to show to end users: it tells no internals."""
        return _PUBLIC_MESSAGES.get(self.kind, _PUBLIC_FALLBACK)

    def attributed(self, *, provider: str, operation: str, attempts: int, time: float) -> Failure:
        """Return the same failure with the call it belongs to filled in."""
        return replace(self, provider=provider, operation=operation, attempts=attempts, time=time)
