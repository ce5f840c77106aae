"""What one link in a chain of errors tells, and the defaults that turn it into a `Failure`."""

from __future__ import annotations

from typing import NamedTuple

from resilience.failure import Category, Delivery, Failure, FailureKind, Verdict

CATEGORIES = {
    FailureKind.TIMEOUT: Category.RETRIABLE,
    FailureKind.CONNECTION_ERROR: Category.RETRIABLE,
    FailureKind.DNS_ERROR: Category.RETRIABLE,
    FailureKind.SERVER_ERROR: Category.RETRIABLE,
    FailureKind.INTERRUPTED: Category.RETRIABLE,
    FailureKind.UNKNOWN_ERROR: Category.RETRIABLE,
    FailureKind.RATE_LIMIT: Category.TRANSIENT,
    FailureKind.OVERLOADED: Category.TRANSIENT,
    FailureKind.BAD_REQUEST: Category.INVALID_INPUT,
    FailureKind.AUTHENTICATION_ERROR: Category.FATAL,
    FailureKind.PERMISSION_DENIED: Category.FATAL,
    FailureKind.NOT_FOUND: Category.FATAL,
    FailureKind.CERTIFICATE_ERROR: Category.FATAL,
    FailureKind.CONFIGURATION_ERROR: Category.FATAL,
    FailureKind.QUOTA_EXHAUSTED: Category.FATAL,
    FailureKind.CANCELLED: Category.FATAL,
    FailureKind.REJECTED: Category.FATAL,
}
"""What a caller can usually do about each kind."""


class Finding(NamedTuple):
    """
    What is known about an error from its class, its code or its errno.

    Args:
        kind: What kind of trouble it is.
        category: What a caller can do about it. Default: None, what is usual for the kind.
        delivery: Whether the provider can have seen the request. Default: None, whatever the root says.
        evidence: What it says to the breaker. Default: None, what is usual for the kind.
        vague: Whether an error further inside may tell more. Default: False.
    """

    kind: FailureKind
    category: Category | None = None
    delivery: Delivery | None = None
    evidence: Verdict | None = None
    vague: bool = False

    def failure(
        self,
        error_type: str,
        *,
        delivery: Delivery | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> Failure:
        """Fill in the rest. *delivery* is what an outer error already settled."""
        return Failure(
            kind=self.kind,
            category=self.category or CATEGORIES[self.kind],
            error_type=error_type,
            delivery=delivery or self.delivery or Delivery.MAYBE,
            status=status,
            code=code,
            retry_after=retry_after,
            evidence=self.evidence,
        )


# The caller's own mistake: repeating it cannot help, and the provider has no part in it.
CALLERS_BUG = Finding(FailureKind.BAD_REQUEST, delivery=Delivery.MAYBE, evidence=Verdict.IGNORED)


def table(*rows: tuple[Finding, *tuple[str, ...]]) -> dict[str, Finding]:
    """Names and what they mean; the strings of a row hold names between spaces."""
    return {name: finding for finding, *lines in rows for line in lines for name in line.split()}
