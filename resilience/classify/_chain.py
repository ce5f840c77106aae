"""From the error that arrived to the one that tells what happened."""

from __future__ import annotations

import builtins
from dataclasses import replace

from resilience.classify import _hints
from resilience.classify._answers import facts_of, of_answer
from resilience.classify._finding import CALLERS_BUG, Finding
from resilience.classify._foreign import is_bare, members, name_of, root_of, safely
from resilience.classify._libraries import of_class
from resilience.classify._roots import of_root
from resilience.classify._texts import of_text, of_value_error
from resilience.errors import CallRejected, CallTimeout, ConfigurationError, ProviderError, UnacceptableResult
from resilience.failure import Category, Delivery, Failure, FailureKind, Verdict

_LONGEST_CHAIN = 32
_WIDEST_GROUP = 16
_DEEPEST_GROUP = 4

_UNKNOWN = Finding(FailureKind.UNKNOWN_ERROR)
_CANCELLED = Finding(FailureKind.CANCELLED)
_REJECTED = Finding(FailureKind.REJECTED, delivery=Delivery.UNSENT)
_TIMED_OUT = Finding(FailureKind.TIMEOUT, delivery=Delivery.MAYBE)
_CUT_OFF = Finding(FailureKind.INTERRUPTED, delivery=Delivery.MAYBE, evidence=Verdict.IGNORED)  # by our own shutdown
_MISCONFIGURED = Finding(FailureKind.CONFIGURATION_ERROR, delivery=Delivery.UNSENT)
_NO_ERROR = Finding(FailureKind.UNKNOWN_ERROR, Category.FATAL, Delivery.PROCESSED, Verdict.SUCCESS)

# Bugs, whoever derives from them; the second lot are so popular as bases for libraries' errors that only they
# themselves count.
_BUGS = (
    TypeError, AttributeError, NameError, AssertionError, NotImplementedError, ImportError, SyntaxError, RecursionError,
    MemoryError, ReferenceError, BufferError, StopIteration, StopAsyncIteration, Warning,
)  # fmt: skip
_BUGS_IF_PLAIN = (ValueError, LookupError, ArithmeticError)


def of_response(response: object, now: float | None) -> Failure:
    """Classify something that is no exception."""
    if (failure := of_answer(response, now)) is not None:
        return failure
    status, code = facts_of(response)
    return _NO_ERROR.failure(name_of(response), status=status, code=code)


def of_error(error: BaseException, now: float | None, depth: int = 0) -> Failure:
    """Classify an exception: itself, or else the nearest one inside that tells."""
    error = _unwrapped(error)
    if not isinstance(error, Exception):
        return _CANCELLED.failure(name_of(error))
    if isinstance(error, _WITH_FAILURE) and (failure := _of_ours(error)) is not None:
        return failure  # it names the error that it stands for
    failure = _walk(error, now, depth) or _of_itself(error)
    if failure.retry_after is None and (pause := _hints.seconds(safely(error, "retry_after"))) is not None:
        failure = replace(failure, retry_after=pause)
    return failure


def _of_itself(error: Exception) -> Failure:
    """The last word on an error that neither it nor anything inside explains."""
    if not _is_bug(error):
        status, code = facts_of(error)
        return _UNKNOWN.failure(name_of(error), status=status, code=code)
    text = of_value_error(error) if isinstance(error, ValueError) else None
    return (text or CALLERS_BUG).failure(name_of(error))


def _is_bug(error: BaseException) -> bool:
    plain = vars(builtins).get(type(error).__name__) is type(error)
    return isinstance(error, _BUGS) or (plain and isinstance(error, _BUGS_IF_PLAIN))


def _unwrapped(error: BaseException) -> BaseException:
    """The only member of a group, and of groups within."""
    for _ in range(_LONGEST_CHAIN):
        if len(only := members(error)) != 1:
            break
        error = only[0]
    return error


def _walk(error: Exception, now: float | None, depth: int) -> Failure | None:
    """
    Follow the chain until a link says what happened; the last vague word counts if none does.

    What lies behind a library's own wrapper by ``__context__`` alone may be whatever the program was handling when
    it made the call, so from there on only network errors are believed, and an unknown error's context cannot make
    a request unsent.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    delivery: Delivery | None = None
    vague: Finding | None = None
    believed = sure = True
    while link is not None and id(link) not in seen and len(seen) < _LONGEST_CHAIN:
        seen.add(id(link))
        link = _unwrapped(link)
        found = _read(link, now, depth, whole=believed)
        if isinstance(found, Failure):
            return _settle(found, error, delivery, sure=sure)
        if found is not None:
            delivery, vague = delivery or found.delivery, found
            if not found.vague:
                break
        inner, by_context = _inner(link)
        if by_context:
            if link is error and _is_bug(error):
                break
            believed, sure = believed and found is None, sure and found is not None
        link = inner
    if vague is None:
        return None
    status, code = facts_of(error)
    return _settle(vague.failure(name_of(error), status=status, code=code), error, delivery, sure=sure)


def _settle(failure: Failure, error: Exception, delivery: Delivery | None, *, sure: bool) -> Failure:
    """Name the error that arrived, and let the outermost word on delivery stand."""
    delivery = delivery or failure.delivery
    if not sure and delivery is Delivery.UNSENT:
        delivery = Delivery.MAYBE
    name = name_of(error)
    if failure.delivery is delivery and failure.error_type == name:
        return failure
    return replace(failure, error_type=name, delivery=delivery)


def _inner(link: BaseException) -> tuple[BaseException | None, bool]:
    """The next link, and whether it is only a context."""
    for name in ("__cause__", "inner_exception", "reason"):
        inner = safely(link, name)
        if isinstance(inner, BaseException):
            return inner, False
    context = safely(link, "__context__")
    return context if isinstance(context, BaseException) else None, True


def _read(link: BaseException, now: float | None, depth: int, *, whole: bool) -> Failure | Finding | None:
    """What this one link tells; only of the network unless it is to be believed as a *whole*."""
    if several := members(link):
        return _combined(several, now, depth) if depth < _DEEPEST_GROUP else None
    if not is_bare(link):
        if whole and (failure := _of_ours(link) or of_answer(link, now)) is not None:
            return failure
        if (finding := _of_classes(link)) is not None:
            return finding
    return of_root(link) if isinstance(link, OSError) else None


def _of_classes(link: BaseException) -> Finding | None:
    """What the nearest class tells that anybody knows."""
    for cls in type(link).__mro__:
        if (root := root_of(cls)) != "builtins":
            finding = of_text(root, cls.__name__, link) or of_class(root, cls.__name__)
            if finding is not None:
                return finding
    return None


_WITH_FAILURE = (ProviderError, UnacceptableResult)


def _of_ours(error: BaseException) -> Failure | None:
    if isinstance(error, _WITH_FAILURE):
        failure: object = safely(error, "failure")
        return failure if isinstance(failure, Failure) else None
    if isinstance(error, CallRejected):
        return _REJECTED.failure(name_of(error), retry_after=_hints.seconds(safely(error, "retry_after")))
    if isinstance(error, CallTimeout):
        return (_CUT_OFF if error.scope == "shutdown" else _TIMED_OUT).failure(name_of(error))
    return _MISCONFIGURED.failure(name_of(error)) if isinstance(error, ConfigurationError) else None


def _combined(several: tuple[BaseException, ...], now: float | None, depth: int) -> Failure:
    """
    One failure for several.

    One that cannot be mended by trying again decides, else the first. Nothing was sent only if none was; one piece
    of evidence against the provider is enough; the longest pause counts.
    """
    failures = [of_error(member, now, depth + 1) for member in several[:_WIDEST_GROUP]]
    chosen = next((failure for failure in failures if not failure.retryable), failures[0])
    deliveries = {failure.delivery for failure in failures}
    return replace(
        chosen,
        delivery=deliveries.pop() if len(deliveries) == 1 else Delivery.MAYBE,
        evidence=Verdict.FAILURE
        if any(failure.verdict is Verdict.FAILURE for failure in failures)
        else chosen.evidence,
        retry_after=max((failure.retry_after for failure in failures if failure.retry_after is not None), default=None),
    )
