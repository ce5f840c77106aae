"""What statuses and the providers' own error codes mean."""

from __future__ import annotations

from resilience.classify._finding import Finding, table
from resilience.failure import Category, Delivery, FailureKind, Verdict

_AUTHENTICATION = Finding(FailureKind.AUTHENTICATION_ERROR, delivery=Delivery.PROCESSED)
_BAD_REQUEST = Finding(FailureKind.BAD_REQUEST, delivery=Delivery.PROCESSED)
_CONFIGURATION = Finding(FailureKind.CONFIGURATION_ERROR, delivery=Delivery.PROCESSED)
_LOST = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.MAYBE)
_NOT_FOUND = Finding(FailureKind.NOT_FOUND, delivery=Delivery.PROCESSED)
_OVERLOADED = Finding(FailureKind.OVERLOADED, delivery=Delivery.PROCESSED)
_PERMISSION = Finding(FailureKind.PERMISSION_DENIED, delivery=Delivery.PROCESSED)
_QUOTA = Finding(FailureKind.QUOTA_EXHAUSTED, delivery=Delivery.PROCESSED)
_RATE_LIMIT = Finding(FailureKind.RATE_LIMIT, delivery=Delivery.PROCESSED)
_REFUSED = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.UNSENT)
_SERVER = Finding(FailureKind.SERVER_ERROR, delivery=Delivery.PROCESSED)
_TIMEOUT = Finding(FailureKind.TIMEOUT, delivery=Delivery.PROCESSED)
# A refusal that comes again however often the same thing is asked.
_REFUSAL = Finding(FailureKind.BAD_REQUEST, Category.FATAL, Delivery.PROCESSED)
_BROKEN = Finding(FailureKind.SERVER_ERROR, Category.FATAL, Delivery.PROCESSED)
# Two transactions got into each other's way: the server is well, and undid this one.
_CONTENTION = Finding(FailureKind.SERVER_ERROR, Category.RETRIABLE, Delivery.PROCESSED, Verdict.SUCCESS)
_CANCELLED = Finding(FailureKind.CANCELLED)

# Retried: 408, 425, 429, 500, 502, 503, 504, 529. Whatever is in neither table is told by its hundreds.
_STATUSES = {
    401: _AUTHENTICATION,
    402: _QUOTA,
    403: _PERMISSION,
    404: _NOT_FOUND,
    407: _CONFIGURATION,  # our own proxy wants credentials
    408: _TIMEOUT,
    410: _NOT_FOUND,
    425: _SERVER,
    429: _RATE_LIMIT,
    451: _PERMISSION,
    500: _SERVER,
    502: _SERVER,
    503: _OVERLOADED,
    504: _TIMEOUT,
    529: _OVERLOADED,
}
FIRST_ERROR, END_OF_ERRORS = 400, 600


def of_status(status: int) -> Finding | None:
    """What an HTTP status means; None for one that is no error by itself."""
    if (found := _STATUSES.get(status)) is not None:
        return found
    if status >= FIRST_ERROR:
        return _BROKEN if status >= 500 else _BAD_REQUEST  # noqa: PLR2004 (the border of HTTP)
    return _REFUSAL if status >= 300 else None  # noqa: PLR2004 (a redirect nobody followed)


# Codes that say more than the status they come with: AWS throttles with 400, Google with 403.
_DECISIVE = table(
    (
        _QUOTA,
        "insufficient_quota billing_hard_limit_reached billing_not_active billing_error storage_quota_exceeded",
        "contract_spend_limit_reached enforced_spend_limit_reached linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable quotaExceeded dailyLimitExceeded ServiceQuotaExceededException",
    ),
    (
        _RATE_LIMIT,  # the throttling codes of botocore, then those of others
        "Throttling ThrottlingException ThrottledException RequestThrottledException TooManyRequestsException",
        "ProvisionedThroughputExceededException TransactionInProgressException RequestLimitExceeded",
        "BandwidthLimitExceeded LimitExceededException RequestThrottled SlowDown SlowDownRead SlowDownWrite",
        "PriorRequestNotComplete EC2ThrottledException slow_down rate_limit_exceeded ramp_limit_exceeded",
        "rateLimitExceeded userRateLimitExceeded TooManyRequests",
    ),
    (_OVERLOADED, "overloaded_error engine_overloaded ServerBusy ModelNotReadyException"),
    (_TIMEOUT, "RequestTimeout RequestTimeoutException OperationTimedOut ModelTimeoutException timeout_error"),
    (
        _AUTHENTICATION,  # S3 and Azure answer 403, DynamoDB 400
        "ExpiredToken ExpiredTokenException RequestExpired InvalidAccessKeyId SignatureDoesNotMatch AuthFailure",
        "InvalidClientTokenId UnrecognizedClientException InvalidSignatureException RequestTimeTooSkewed",
        "AuthenticationFailed invalid_api_key",
    ),
    (_PERMISSION, "AccessDeniedException"),
    (_NOT_FOUND, "ResourceNotFoundException"),
)
# Codes so general that a status is worth more: openai says "invalid_request_error" with a 404.
_GENERAL = table(
    (_AUTHENTICATION, "authentication_error"),
    (_BAD_REQUEST, "invalid_request_error context_length_exceeded content_filter content_policy_violation"),
    (_BAD_REQUEST, "conflict_error request_too_large"),
    (_NOT_FOUND, "not_found_error model_not_found"),
    (_PERMISSION, "permission_error"),
    (_RATE_LIMIT, "rate_limit_error"),
    (_SERVER, "api_error server_error internal_error InternalError InternalFailure"),
)


def of_code(code: str, status: int | None) -> Finding | None:
    """What a provider's own code means beside *status*, or None if it adds nothing."""
    found = _DECISIVE.get(code)
    if found is None and (status is None or status < FIRST_ERROR):
        return _GENERAL.get(code)
    return found


_GRPC = {
    "CANCELLED": _CANCELLED,
    "UNKNOWN": Finding(FailureKind.SERVER_ERROR),
    "INVALID_ARGUMENT": _BAD_REQUEST,
    "DEADLINE_EXCEEDED": Finding(FailureKind.TIMEOUT),
    "NOT_FOUND": _NOT_FOUND,
    "ALREADY_EXISTS": _BAD_REQUEST,
    "PERMISSION_DENIED": _PERMISSION,
    "RESOURCE_EXHAUSTED": _RATE_LIMIT,
    "FAILED_PRECONDITION": _BAD_REQUEST,
    "ABORTED": _BAD_REQUEST,  # like 409: the whole read-modify-write must be done again, not this call
    "OUT_OF_RANGE": _BAD_REQUEST,
    "UNIMPLEMENTED": _BAD_REQUEST,
    "INTERNAL": Finding(FailureKind.SERVER_ERROR),  # some are made by the client, when a stream broke
    "UNAVAILABLE": _LOST,
    "DATA_LOSS": _BROKEN,
    "UNAUTHENTICATED": _AUTHENTICATION,
}
_RESOLVER = ("DNS resolution failed", "errors resolving", "Domain name not found")


def of_grpc(name: str, details: str, *, answered: bool) -> Finding | None:
    """
    What a gRPC status means.

    UNAVAILABLE is both the server's word and the library's for a connection that it lost or never got; only the
    text tells these, and a hint on when to come back shows that somebody *answered*.
    """
    found = _GRPC.get(name)
    if found is not _LOST:
        return found
    if answered:
        return _OVERLOADED
    if details.startswith(_RESOLVER):
        return Finding(FailureKind.DNS_ERROR, delivery=Delivery.UNSENT)
    return _REFUSED if details.startswith("failed to connect to all addresses") else _LOST


# The longest prefix of the five characters counts.
_SQLSTATES = {
    "08": _LOST,
    "08001": _REFUSED,
    "08004": _REFUSED,
    "28": _AUTHENTICATION,
    "3D": _CONFIGURATION,
    "40": _CONTENTION,
    "40003": _LOST,  # nobody knows whether the statement was completed
    "42501": _PERMISSION,
    "53": _OVERLOADED,
    "55P03": _CONTENTION,
    "57": _SERVER,
    "57014": _TIMEOUT,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _REFUSED,
    "57P05": _LOST,
    "58": _SERVER,
    "F0": _SERVER,
    "XX": _SERVER,
}


def of_sqlstate(state: str) -> Finding:
    """What an SQLSTATE means."""
    return _SQLSTATES.get(state) or _SQLSTATES.get(state[:2]) or _BAD_REQUEST


# The word in front of a Redis error is its code.
_REDIS = table(
    (_AUTHENTICATION, "NOAUTH WRONGPASS DENIED"),
    (_PERMISSION, "NOPERM"),
    (_OVERLOADED, "LOADING BUSY OOM TRYAGAIN CLUSTERDOWN MASTERDOWN"),
    (_SERVER, "READONLY MISCONF NOREPLICAS MOVED ASK UNBLOCKED"),
)


def of_redis(word: str) -> Finding:
    """What the first word of a Redis error means."""
    return _REDIS.get(word, _BAD_REQUEST)
