"""
What the exception classes of the libraries mean, by the package they come from and by their name.

Names instead of classes, so that no library has to be imported, and httpx2 is read like httpx although the two
have no common base. A class is looked up along its bases: users' subclasses are understood too.
"""

from __future__ import annotations

from resilience.classify._finding import CALLERS_BUG, Finding, table
from resilience.failure import Category, Delivery, FailureKind, Verdict

_UNSENT, _MAYBE, _PROCESSED = Delivery.UNSENT, Delivery.MAYBE, Delivery.PROCESSED
_CONNECTION, _TIMEOUT = FailureKind.CONNECTION_ERROR, FailureKind.TIMEOUT

_BUG = CALLERS_BUG
_INVALID = Finding(FailureKind.BAD_REQUEST, delivery=_UNSENT, evidence=Verdict.IGNORED)
_CONFIGURATION = Finding(FailureKind.CONFIGURATION_ERROR, delivery=_UNSENT)
_CREDENTIALS = Finding(FailureKind.AUTHENTICATION_ERROR, delivery=_UNSENT, evidence=Verdict.IGNORED)
_CERTIFICATE = Finding(FailureKind.CERTIFICATE_ERROR, delivery=_UNSENT)
_DNS = Finding(FailureKind.DNS_ERROR, delivery=_UNSENT)
_CANCELLED = Finding(FailureKind.CANCELLED)

_NO_CONNECTION = Finding(_CONNECTION, delivery=_UNSENT, vague=True)
_LOST = Finding(_CONNECTION, delivery=_MAYBE)
_LOST_SOMEHOW = Finding(_CONNECTION, delivery=_MAYBE, vague=True)
_NETWORK = Finding(_CONNECTION, vague=True)  # refused or lost: the root knows
_TLS = Finding(FailureKind.CERTIFICATE_ERROR, vague=True)
_CONNECT_TIMEOUT = Finding(_TIMEOUT, delivery=_UNSENT)
_READ_TIMEOUT = Finding(_TIMEOUT, delivery=_MAYBE)
_SOME_TIMEOUT = Finding(_TIMEOUT, vague=True)
# Waiting for a connection of our own pool. The calls that hold them are the evidence; this one never got near.
_POOL_TIMEOUT = Finding(_TIMEOUT, delivery=_UNSENT, evidence=Verdict.IGNORED)
_POOL_FULL = Finding(_CONNECTION, delivery=_UNSENT, evidence=Verdict.IGNORED)
_CUT = Finding(FailureKind.INTERRUPTED, delivery=_PROCESSED)
_BROKE_OFF = Finding(FailureKind.INTERRUPTED, delivery=_MAYBE)  # of a bare stream: who knows what came before
_CUT_SOMEHOW = Finding(FailureKind.INTERRUPTED, delivery=_PROCESSED, vague=True)

_REFUSAL = Finding(FailureKind.BAD_REQUEST, delivery=_PROCESSED)
_DEAD_END = Finding(FailureKind.BAD_REQUEST, Category.FATAL, _PROCESSED)
_AUTHENTICATION = Finding(FailureKind.AUTHENTICATION_ERROR, delivery=_PROCESSED)
_PERMISSION = Finding(FailureKind.PERMISSION_DENIED, delivery=_PROCESSED)
_NOT_FOUND = Finding(FailureKind.NOT_FOUND, delivery=_PROCESSED)
_OVERLOADED = Finding(FailureKind.OVERLOADED, delivery=_PROCESSED)
_SERVER = Finding(FailureKind.SERVER_ERROR, delivery=_PROCESSED)
_UNKNOWN = Finding(FailureKind.UNKNOWN_ERROR, vague=True)


_HTTPX = table(
    (_NO_CONNECTION, "ConnectError ProxyError"),
    (_CONNECT_TIMEOUT, "ConnectTimeout"),
    (_POOL_TIMEOUT, "PoolTimeout"),
    (_READ_TIMEOUT, "ReadTimeout WriteTimeout TimeoutException"),
    (_LOST_SOMEHOW, "ReadError WriteError CloseError NetworkError TransportError RequestError"),
    (_LOST, "RemoteProtocolError"),
    (_CUT, "DecodingError"),
    (_DEAD_END, "TooManyRedirects"),
    (_INVALID, "LocalProtocolError"),
    (_CONFIGURATION, "UnsupportedProtocol InvalidURL"),
    (_BUG, "StreamError CookieConflict"),
)
_SDK = table(
    (_SOME_TIMEOUT, "APITimeoutError"),
    (_NETWORK, "APIConnectionError"),
    (_CUT, "APIResponseValidationError"),
    (_SERVER, "APIError"),  # an error object inside a stream
    (_REFUSAL, "LengthFinishReasonError ContentFilterFinishReasonError"),
    (_BUG, "APIWebhookValidationError InvalidWebhookSignatureError"),
    (_UNKNOWN, "RetryableError"),
    (_LOST, "WebSocketConnectionClosedError"),
    (_POOL_FULL, "WebSocketQueueFullError"),
    (_CONFIGURATION, "OpenAIError AnthropicError"),
)
_REDIS = table(
    (_NETWORK, "ConnectionError RedisClusterException"),
    (_SOME_TIMEOUT, "TimeoutError"),
    (_POOL_FULL, "MaxConnectionsError"),
    (
        _AUTHENTICATION,
        "AuthenticationError AuthenticationFailureError AuthenticationRequiredError",
        "AuthenticationWrongNumberOfArgsError",
    ),
    (_PERMISSION, "AuthorizationError NoPermissionError"),
    (_OVERLOADED, "BusyLoadingError ClusterDownError MasterDownError TryAgainError OutOfMemoryError"),
    (_SERVER, "ReadOnlyError MovedError AskError ClusterError PersistenceError ReplicationError UnblockedError"),
    (_SERVER, "PrimaryNotFoundError ReplicaNotFoundError StalePrimaryError SlotNotCoveredError"),
    (_CUT, "InvalidResponse ProtocolError"),
    (_INVALID, "DataError CommandSyntaxError CommandNotSupportedError PubSubError CrossSlotTransactionError"),
    (_INVALID, "InvalidPipelineStack IncorrectPolicyType"),
    (_REFUSAL, "ResponseError RedisError"),
)

_LIBRARIES: dict[str, dict[str, Finding]] = {
    "httpx": _HTTPX,
    "httpx2": _HTTPX,
    "httpcore": _HTTPX,
    "httpcore2": _HTTPX,
    "openai": _SDK,
    "anthropic": _SDK,
    "redis": _REDIS,
    "coredis": _REDIS,
    "botocore": table(
        (_CONNECT_TIMEOUT, "ConnectTimeoutError"),
        (_READ_TIMEOUT, "ReadTimeoutError"),
        (_NETWORK, "EndpointConnectionError ConnectionError"),  # aiobotocore calls a reset an EndpointConnectionError
        (_NO_CONNECTION, "ProxyConnectionError"),
        (_LOST, "ConnectionClosedError"),
        (_LOST_SOMEHOW, "HTTPClientError"),
        (_TLS, "SSLError"),
        (_CUT, "ResponseStreamingError IncompleteReadError ChecksumError FlexibleChecksumError"),
        (_CREDENTIALS, "NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError"),
        (_CREDENTIALS, "NoAuthTokenError SSOError LoginError MetadataRetrievalError RefreshWithMFAUnsupportedError"),
        (_INVALID, "ParamValidationError ValidationError MissingParametersError UnseekableStreamError"),
        (_UNKNOWN, "WaiterError ClientError"),
        (_CONFIGURATION, "BotoCoreError"),
    ),
    "google": table(
        (_NETWORK, "TransportError"),
        (Finding(_TIMEOUT, delivery=_UNSENT), "TimeoutError"),  # google.auth gave up fetching a token
        (_CREDENTIALS, "RefreshError UserAccessTokenError OAuthError"),
        (_CONFIGURATION, "GoogleAuthError"),
        (_CUT, "DataCorruption InvalidResponse"),
        (_UNKNOWN, "GoogleAPIError"),
    ),
    "azure": table(
        (_CONNECT_TIMEOUT, "ServiceRequestTimeoutError"),
        (_READ_TIMEOUT, "ServiceResponseTimeoutError"),
        (_NETWORK, "ServiceRequestError"),  # "no request was sent", but over aiohttp a reset arrives like this too
        (_LOST_SOMEHOW, "ServiceResponseError"),
        (_CUT, "DecodeError DeserializationError"),
        (_CUT_SOMEHOW, "HttpResponseError"),  # without a status: the reply broke off
        (_CREDENTIALS, "ClientAuthenticationError"),
        (_BUG, "StreamConsumedError StreamClosedError ResponseNotReadError SerializationError"),
        (_UNKNOWN, "AzureError"),
    ),
    "obstore": table(
        (_NOT_FOUND, "NotFoundError"),
        (_REFUSAL, "AlreadyExistsError PreconditionError NotModifiedError"),
        (_PERMISSION, "PermissionDeniedError"),
        (_AUTHENTICATION, "UnauthenticatedError"),
        (_INVALID, "InvalidPathError NotSupportedError"),
        (_CONFIGURATION, "UnknownConfigurationKeyError"),
        (_UNKNOWN, "BaseError"),
    ),
    "grpc": table(
        (_CONNECT_TIMEOUT, "FutureTimeoutError"),  # of channel_ready_future
        (_CANCELLED, "FutureCancelledError"),
        (_BUG, "UsageError AbortError"),
        (_LOST, "RpcError"),
    ),
    "asyncpg": table(
        (_CONFIGURATION, "ClientConfigurationError"),
        (_BUG, "InterfaceError"),
        (_NO_CONNECTION, "TargetServerAttributeNotMatched"),
        (_LOST, "InternalClientError"),
    ),
    "requests": table(
        (_CONNECT_TIMEOUT, "ConnectTimeout"),
        (_READ_TIMEOUT, "ReadTimeout Timeout"),
        (_TLS, "SSLError"),
        (_NO_CONNECTION, "ProxyError"),
        (_NETWORK, "ConnectionError"),
        (_CUT, "ChunkedEncodingError ContentDecodingError JSONDecodeError"),
        (_SERVER, "RetryError"),
        (_DEAD_END, "TooManyRedirects"),
        (_CONFIGURATION, "MissingSchema InvalidSchema InvalidURL URLRequired"),
        (_INVALID, "InvalidHeader InvalidJSONError StreamConsumedError UnrewindableBodyError"),
        (_LOST_SOMEHOW, "RequestException"),
    ),
    "urllib3": table(
        (_NO_CONNECTION, "NewConnectionError ProxyError"),
        (_DNS, "NameResolutionError"),
        (_CONNECT_TIMEOUT, "ConnectTimeoutError"),
        (_READ_TIMEOUT, "ReadTimeoutError TimeoutError"),
        (_TLS, "SSLError"),
        (_NETWORK, "MaxRetryError"),
        (_LOST_SOMEHOW, "ProtocolError HTTPError"),
        (_CUT, "IncompleteRead InvalidChunkLength DecodeError"),
        (_SERVER, "ResponseError"),
        (_POOL_TIMEOUT, "EmptyPoolError"),
        (_POOL_FULL, "FullPoolError"),
        (_BUG, "ClosedPoolError"),
        (_CONFIGURATION, "LocationValueError ProxySchemeUnsupported"),
    ),
    "aiohttp": table(
        (_CONNECT_TIMEOUT, "ConnectionTimeoutError"),
        (_READ_TIMEOUT, "ServerTimeoutError"),
        (_DNS, "ClientConnectorDNSError"),
        (_CERTIFICATE, "ClientConnectorCertificateError ServerFingerprintMismatch"),
        (_TLS, "ClientConnectorSSLError"),
        (_NO_CONNECTION, "ClientConnectorError ClientHttpProxyError"),
        (_CUT, "ClientPayloadError ContentTypeError ContentLengthError TransferEncodingError"),
        (_DEAD_END, "TooManyRedirects"),
        (_LOST, "ServerDisconnectedError HttpProcessingError"),
        (_LOST_SOMEHOW, "ClientConnectionError ClientResponseError"),
        (_CONFIGURATION, "InvalidURL NonHttpUrlClientError"),
    ),
    "http": table(
        (_LOST, "RemoteDisconnected BadStatusLine LineTooLong UnknownProtocol"),
        (_CUT, "IncompleteRead"),
        (_CONFIGURATION, "InvalidURL"),
        (_BUG, "ImproperConnectionState NotConnected"),
        (_LOST_SOMEHOW, "HTTPException"),
    ),
    "urllib": table((_CUT, "ContentTooShortError"), (_NETWORK, "URLError")),
    "json": table((_CUT, "JSONDecodeError")),
    "zlib": table((_CUT, "error")),
    "gzip": table((_CUT, "BadGzipFile")),
    "asyncio": table((_BROKE_OFF, "IncompleteReadError LimitOverrunError"), (_BUG, "InvalidStateError")),
    "anyio": table(
        (_NO_CONNECTION, "ConnectionFailed"),
        (_NETWORK, "BrokenResourceError EndOfStream"),
        (_BROKE_OFF, "IncompleteRead DelimiterNotFound"),
        (_BUG, "ClosedResourceError BusyResourceError"),
    ),
    "trio": table(
        (_SOME_TIMEOUT, "TooSlowError"),
        (_NETWORK, "BrokenResourceError"),
        (_BUG, "ClosedResourceError BusyResourceError NeedHandshakeError"),
    ),
    "resilience": table((_CUT, "StreamInterrupted")),
    "concurrent": table((_CANCELLED, "CancelledError")),
    "pydantic": table((_BUG, "ValidationError")),
    "pydantic_core": table((_BUG, "ValidationError")),
}


def of_class(root: str, name: str) -> Finding | None:
    """What the class *name* of the package *root* means, or None if nobody knows."""
    library = _LIBRARIES.get(root)
    return library.get(name) if library is not None else None
