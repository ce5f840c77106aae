"""What the operating system, the resolver and TLS say: the roots at the end of most chains."""

from __future__ import annotations

import errno
import socket
import ssl

from resilience.classify._finding import Finding, table
from resilience.classify._foreign import safely
from resilience.failure import Category, Delivery, FailureKind, Verdict

_LOST = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.MAYBE)
_REFUSED = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.UNSENT)
_UNREACHABLE = Finding(FailureKind.CONNECTION_ERROR)  # a connection that stood can end like this too
_SOMETHING = Finding(FailureKind.CONNECTION_ERROR, vague=True)
_TIMEOUT = Finding(FailureKind.TIMEOUT)
_DNS = Finding(FailureKind.DNS_ERROR, delivery=Delivery.UNSENT)
_CERTIFICATE = Finding(FailureKind.CERTIFICATE_ERROR)
_UNTRUSTED = Finding(FailureKind.CERTIFICATE_ERROR, delivery=Delivery.UNSENT)
_NO_COMMON_TLS = Finding(FailureKind.CONFIGURATION_ERROR, delivery=Delivery.UNSENT, evidence=Verdict.FAILURE)
# This machine ran out of something: wait, but do not blame the provider.
_STARVED = Finding(FailureKind.CONNECTION_ERROR, delivery=Delivery.UNSENT, evidence=Verdict.IGNORED)
_BROKEN_MACHINE = Finding(FailureKind.CONFIGURATION_ERROR)
_LOCAL_FILE = Finding(FailureKind.BAD_REQUEST, evidence=Verdict.IGNORED)
_LOCAL_FILE_MISSING = Finding(FailureKind.NOT_FOUND, evidence=Verdict.IGNORED)
_LOCAL_FILE_FORBIDDEN = Finding(FailureKind.PERMISSION_DENIED, evidence=Verdict.IGNORED)
_ANSWERED_MISSING = Finding(FailureKind.NOT_FOUND, delivery=Delivery.PROCESSED)
_ANSWERED_FORBIDDEN = Finding(FailureKind.PERMISSION_DENIED, delivery=Delivery.PROCESSED)
_ANSWERED_NO = Finding(FailureKind.BAD_REQUEST, Category.FATAL, Delivery.PROCESSED)
_UNKNOWN = Finding(FailureKind.UNKNOWN_ERROR)

_ERRNOS = {
    **dict.fromkeys((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET), _UNREACHABLE),
    **dict.fromkeys((errno.ENOTCONN, errno.ESHUTDOWN, errno.EPROTO), _LOST),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL), _STARVED),
    **dict.fromkeys((errno.ENOSPC, errno.EROFS, errno.EDQUOT), _BROKEN_MACHINE),
    errno.ECONNREFUSED: _REFUSED,
    errno.ECONNRESET: _LOST,
    errno.ECONNABORTED: _LOST,
    errno.EPIPE: _LOST,
    errno.ETIMEDOUT: _TIMEOUT,
}

# OpenSSL's names for what a handshake fails on, other than the check of the server's certificate.
_HANDSHAKES = table(
    (
        _CERTIFICATE,
        "SSLV3_ALERT_BAD_CERTIFICATE SSLV3_ALERT_UNSUPPORTED_CERTIFICATE SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED SSLV3_ALERT_CERTIFICATE_UNKNOWN SSLV3_ALERT_NO_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA TLSV13_ALERT_CERTIFICATE_REQUIRED TLSV1_ALERT_ACCESS_DENIED",
        "CERTIFICATE_VERIFY_FAILED",
    ),
    (
        _NO_COMMON_TLS,
        "TLSV1_ALERT_PROTOCOL_VERSION UNSUPPORTED_PROTOCOL UNKNOWN_PROTOCOL WRONG_VERSION_NUMBER WRONG_SSL_VERSION",
        "NO_PROTOCOLS_AVAILABLE VERSION_TOO_LOW VERSION_TOO_HIGH HTTP_REQUEST HTTPS_PROXY_REQUEST NO_SHARED_CIPHER",
        "NO_CIPHERS_AVAILABLE SSLV3_ALERT_HANDSHAKE_FAILURE TLSV1_ALERT_INSUFFICIENT_SECURITY",
        "TLSV1_ALERT_INAPPROPRIATE_FALLBACK NO_APPLICATION_PROTOCOL TLSV1_UNRECOGNIZED_NAME",
    ),
)


def of_root(error: OSError) -> Finding:
    """What an operating system's error means."""
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    if isinstance(error, (socket.gaierror, socket.herror)):
        return _DNS
    if isinstance(error, TimeoutError):
        return _TIMEOUT
    number = safely(error, "errno")
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)):
        return _of_file(error, number)
    if isinstance(number, int) and number in _ERRNOS:
        return _ERRNOS[number]
    if isinstance(error, ConnectionRefusedError):
        return _REFUSED
    if isinstance(error, ConnectionError):
        return _LOST
    return _SOMETHING if number is None else _UNKNOWN


def _of_tls(error: ssl.SSLError) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _UNTRUSTED
    reason = safely(error, "reason")
    return _HANDSHAKES.get(reason, _LOST) if isinstance(reason, str) else _LOST


def _of_file(error: OSError, number: object) -> Finding:
    """
    Tell three things apart that Python gives one class: our files, a Unix socket, and a provider's answer.

    Opening a file names it; connecting to a socket does not. Storage libraries raise these classes for what a
    server said, without an errno.
    """
    missing, forbidden = isinstance(error, FileNotFoundError), isinstance(error, PermissionError)
    if number is None:
        return _ANSWERED_MISSING if missing else _ANSWERED_FORBIDDEN if forbidden else _ANSWERED_NO
    if missing:
        return _LOCAL_FILE_MISSING if safely(error, "filename") is not None else _REFUSED
    return _LOCAL_FILE_FORBIDDEN if forbidden else _LOCAL_FILE
