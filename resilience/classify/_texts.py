"""The last resort: what only the message of an error tells, for the few classes that say nothing else."""

from __future__ import annotations

from collections.abc import Callable

from resilience.classify._codes import of_redis
from resilience.classify._finding import CALLERS_BUG, Finding
from resilience.classify._foreign import safely, text_of
from resilience.failure import Delivery, FailureKind

_LOST = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.MAYBE)
_REFUSED = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.UNSENT)
_NOT_CONNECTED = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.UNSENT, vague=True)
_DISCONNECTED = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.MAYBE, vague=True)
_DNS = Finding(FailureKind.DNS_ERROR, delivery=Delivery.UNSENT)
_CERTIFICATE = Finding(FailureKind.CERTIFICATE_ERROR, delivery=Delivery.UNSENT)
_CONNECT_TIMEOUT = Finding(FailureKind.TIMEOUT, delivery=Delivery.UNSENT)
_READ_TIMEOUT = Finding(FailureKind.TIMEOUT, delivery=Delivery.MAYBE)
_CUT = Finding(FailureKind.INTERRUPTED, delivery=Delivery.PROCESSED)
_MISROUTED = Finding(FailureKind.CONFIGURATION_ERROR, delivery=Delivery.PROCESSED)
_UNKNOWN = Finding(FailureKind.UNKNOWN_ERROR)

# What obstore's "Debug source" shows of the Rust error inside, the more telling first.
_OBSTORE = (
    ("InvalidCertificate(", _CERTIFICATE),
    ('"dns error"', _DNS),
    ("kind: Connect,", _REFUSED),
    ("kind: Timeout,", _READ_TIMEOUT),
    ("kind: Body,", _CUT),
    ("kind: Decode,", _CUT),
    ("HttpError {", _LOST),
    ("Received redirect without LOCATION", _MISROUTED),
)


def _protocol(error: BaseException) -> Finding:
    """Httpx has one class for a reply that never began, that broke off, and that is no HTTP."""
    return _CUT if "without sending complete message body" in text_of(error) else _LOST


def _redis(error: BaseException) -> Finding:
    """Only the word that Redis puts in front of every error says what it is."""
    word = safely(error, "status_code")  # redis-py takes the words it knows off the text
    return of_redis(word if isinstance(word, str) else text_of(error).partition(" ")[0])


def _redis_connection(error: BaseException) -> Finding:
    text = text_of(error)
    connecting = " connecting to " in text or text.startswith("Unable to establish a connection")
    return _NOT_CONNECTED if connecting else _DISCONNECTED


def _redis_timeout(error: BaseException) -> Finding:
    return _CONNECT_TIMEOUT if text_of(error).startswith("Timeout connecting") else _READ_TIMEOUT


def _asyncpg_interface(error: BaseException) -> Finding:
    """Nearly all of these are misuse, but a pool can hand out a connection that has died meanwhile."""
    return _REFUSED if "connection is closed" in text_of(error) else CALLERS_BUG


def _obstore(error: BaseException) -> Finding:
    text = text_of(error)
    return next((finding for mark, finding in _OBSTORE if mark in text), _UNKNOWN)


def obstore_answer(error: BaseException) -> tuple[int | None, str]:
    """The status and the code that obstore leaves in the text of everything a server answered."""
    _, _, rest = text_of(error).partition("non-2xx status code: ")
    status = rest[:3]
    return (int(status), xml_code(rest)) if status.isascii() and status.isdecimal() else (None, "")


def xml_code(text: str) -> str:
    """The error code in a reply of S3, of Azure or of one of their likes; empty if there is none."""
    return text.partition("<Code>")[2].partition("</Code>")[0]


_READERS: dict[tuple[str, str], Callable[[BaseException], Finding]] = {
    ("httpx", "RemoteProtocolError"): _protocol,
    ("httpx2", "RemoteProtocolError"): _protocol,
    ("httpcore", "RemoteProtocolError"): _protocol,
    ("httpcore2", "RemoteProtocolError"): _protocol,
    ("redis", "ConnectionError"): _redis_connection,
    ("redis", "TimeoutError"): _redis_timeout,
    ("redis", "ResponseError"): _redis,
    ("coredis", "ConnectionError"): _redis_connection,
    ("coredis", "ResponseError"): _redis,
    ("asyncpg", "InterfaceError"): _asyncpg_interface,
    ("obstore", "GenericError"): _obstore,
}


def of_text(root: str, name: str, error: BaseException) -> Finding | None:
    """What the text of *error* tells, if the class *name* of *root* is one of those that need it."""
    reader = _READERS.get((root, name))
    return reader(error) if reader is not None else None


def of_value_error(error: ValueError) -> Finding | None:
    """azure-storage-blob says so when a download's reply came without its range: cut, or not Azure's."""
    return _CUT if text_of(error).startswith("Required Content-Range response header") else None
