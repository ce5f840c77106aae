"""
What happens in resilient calls, as log lines through the standard library.

Importing `resilience` prints nothing. An application that has its own logging sees the lines there: they come from
the loggers ``resilience.retry``, ``.circuit``, ``.gate``, ``.deadline``, ``.call``, ``.limits``, ``.routing``,
``.settings`` and ``.shutdown``. One that has none can say ``resilience.logging.configure("json")``.

===========================  ========  ================================================================================
what                         level     line
===========================  ========  ================================================================================
a retry was scheduled        INFO      ``[RETRY] attempt 2/3 of upload to s3 in 0.84 s (server_error)``
a circuit opened             WARNING   ``[CIRCUIT] openai: closed -> open (5 failures in a row)``
... probes again, or closed  INFO      ``[CIRCUIT] openai: half_open -> closed (2 of 2 probes succeeded)``
... was forced or disabled   WARNING   ``[CIRCUIT] openai: closed -> forced_open (by hand)``
a probe did not come back    WARNING   ``[CIRCUIT] openai: a probe did not come back, its slot is free again``
a gate closed                WARNING   ``[GATE] openai: closed for 12.0 s (asked by the provider)``
a deadline expired           WARNING   ``[TIMEOUT] attempt 2 of upload to s3 after 30.0 s (limit 30 s)``
an attempt will not end      WARNING   ``[OVERDUE] upload to s3 goes on 5.0 s after it was interrupted ...``
a call gave up               ERROR     ``[FAILED] upload to s3 after 3 attempts in 4.21 s (server_error, attempts
                                       spent)``, and the traceback
a call failed for good       WARNING   the same, without a traceback: repeating it could not help (a wrong key, say)
a request was refused        INFO      the same: the provider found it invalid, which is the caller's business
a call recovered             INFO      ``[RECOVERED] upload to s3 after 2 attempts in 1.13 s``
a rate limit was tightened   INFO      ``[LIMIT] openai: 12 left of requests/60s, full again in 3.2 s (told by the
                                       provider)``
a pool leaves a member out   WARNING   ``[POOL] eu: left out for 30.0 s (9 of 10 calls failed)``
... and asks it again        INFO      ``[POOL] eu: asked again``
settings were taken          INFO      ``[SETTINGS] 1 change from app.toml: defaults.retry.max_attempts: 3 -> 5``
settings were refused        WARNING   ``[SETTINGS] those from app.toml are refused, nothing changed: ...``
a registry shuts down        INFO      ``[SHUTDOWN] no new calls: 3 attempts have 20 s, 1 waiting call sent away``
... and is shut down         INFO      ``[SHUTDOWN] over in 2.1 s: 3 finished, 0 interrupted, 0 still running, 1
                                       refused``; WARNING if anything was interrupted or could not be closed
one attempt failed           DEBUG     ``[ATTEMPT] attempt 1 of upload to s3 failed after 0.12 s (server_error)``
a call was not let through   DEBUG     ``[REJECTED] upload to s3 (circuit open), retry in 12.4 s``
... or would not have been   DEBUG     ``[SHADOW] upload to s3 would be rejected (circuit open)``
a call is hedged             DEBUG     ``[HEDGE] a second attempt of search to api after 0.25 s``
... and the second is first  DEBUG     ``[HEDGE] the second attempt of search to api answered first, in 0.31 s``
a call goes elsewhere        DEBUG     ``[FALLBACK] chat to openai goes on with anthropic (circuit open)``
a call waits for another     DEBUG     ``[COALESCED] models to openai waits for an identical one``
an adaptive limit moved      DEBUG     ``[LIMIT] s3: 20 -> 18 attempts at once (latency)``
===========================  ========  ================================================================================

An open circuit is one line, not one per call that meets it. What is told at DEBUG, failed calls aside, is so frequent
when things go badly, or even when they go well, that its events are not even made by default:
``configure(level="DEBUG")`` asks for them, or, with a logging of one's own,
``subscribe(resilience.logging.log_event, *resilience.logging.DEBUG_EVENTS)``.

An error that an inner call of the same provider has told is told again at DEBUG only, and so is a refusal by another
provider's circuit. The traceback of one exception is shown once, however many providers it passes through.

Every record of these loggers has the attributes `FIELDS`, None where they say nothing. No line holds the text of an
error, a payload or a URL; a traceback ends with the text of its error, which the provider or its client wrote:
``configure(tracebacks=False)`` leaves them out.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Literal, TextIO

from resilience.events import process_bus
from resilience.logging import lines
from resilience.logging.lines import DEBUG_EVENTS as DEBUG_EVENTS
from resilience.logging.lines import FIELDS as FIELDS
from resilience.logging.lines import correlation_id as correlation_id
from resilience.logging.lines import log_event as log_event

if TYPE_CHECKING:
    from resilience.logging.output import LogOutput

__all__ = ["DEBUG_EVENTS", "FIELDS", "configure", "correlation_id", "install", "log_event"]


def install(trace_id: Callable[[], str | None] | None = None) -> None:
    """
    Turn the events of this process into log lines; done once, however often it is called.

    Args:
        trace_id: Gives the id of the current trace, for lines whose `correlation_id` is not set. Default: None.
    """
    if trace_id is not None:
        lines.trace_id = trace_id
    _listen()


@cache
def _listen() -> None:
    # Without a handler of its own a library's warnings would reach stderr in programs that never asked for logs.
    logging.getLogger("resilience").addHandler(logging.NullHandler())
    process_bus.subscribe(log_event, *lines.EVENTS)


def configure(
    format: Literal["json", "console"] = "console",  # noqa: A002 - the word people look for
    level: int | str = "INFO",
    output: TextIO | str | PathLike[str] | None = None,
    *,
    tracebacks: bool = True,
) -> LogOutput:
    """
    Write the log lines of this package to *output*, from a thread of their own.

    The thread that logs never waits for a disk or a pipe: it hands the line over. If the output falls 10,000 lines
    behind, further lines are dropped, and a line says how many. Meanwhile the lines do not reach the handlers of the
    root logger, which would write them twice. Calling it again replaces the former output.

    Args:
        format: ``"json"``, one object per line, or ``"console"`` (default), for people; coloured on a terminal
            unless ``NO_COLOR`` is set.
        level: The least level to write. Default: ``"INFO"``.
        output: An open text stream, which stays open, or the path of a file to append to (it may be moved away by
            log rotation). Default: None, ``sys.stderr`` as it is now.
        tracebacks: Whether to write the tracebacks of calls that gave up. Default: True.

    Returns:
        The output. Its ``close()`` writes what is left and puts the logger back as it was; this happens at exit too.

    Raises:
        ConfigurationError: The format or the level is unknown, or the output cannot be written to.
    """
    from resilience.logging.output import open_output

    return open_output(format, level, sys.stderr if output is None else output, tracebacks=tracebacks)
