"""The bodies of responses: covered to their end, or read ahead as far as it takes to judge an error."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from typing import Any

import anyio

from providers.http._library import Body, Library


class Covered:
    """
    A body whose attempt is not over before it is.

    Read to its end it was a success, and an error on the way is the attempt's error. A reader who leaves early says
    nothing about the provider. Whichever way it ends, the attempt's permit and slot are returned then.

    Args:
        body: The body itself.
        hold: What is held until it ends.
        idle: How long a gap may last, in seconds; None leaves that to the client's own read timeout.
        library: Whose body it is.
        by_us: Whether we have to watch the gaps ourselves.
    """

    def __init__(self, body: Body, hold: Any, idle: float | None, library: Library, *, by_us: bool) -> None:
        self._body = body
        self._hold = hold
        self._idle = idle
        self._library = library
        self._by_us = by_us and idle is not None
        self._begun = False
        self._parts: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._parts = self._body.__aiter__()
        return self

    async def __anext__(self) -> bytes:
        parts = self._parts
        assert parts is not None  # noqa: S101 - nobody asks for a part but through __aiter__
        try:
            part = await (self._in_time(parts) if self._by_us else parts.__anext__())
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as error:
            if self._idle is not None and isinstance(error, self._library.timeout):
                error.add_note(f"resilience: nothing more of the body came for {self._idle:g} s (stream.idle)")
            self._end(error)
            raise
        if self._begun and self._hold is not None:
            self._hold.renew()
        self._begun = True
        return part

    async def _in_time(self, parts: AsyncIterator[bytes]) -> bytes:
        with anyio.move_on_after(self._idle):
            return await parts.__anext__()
        raise self._library.read_timeout("")

    def _end(self, error: BaseException | None) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.end(error, slow=hold.slow)

    async def aclose(self) -> None:
        """Let go of the connection, and of the permit if the body was not read to its end."""
        try:
            await self._body.aclose()
        finally:
            if self._hold is not None:
                self._end(_Left())

    def __del__(self) -> None:
        if self._hold is not None:
            self._end(_Left())
            warnings.warn(
                "a response was neither read to its end nor closed: use `async with client.stream(...)`",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )


class _Left(GeneratorExit):
    """The reader left before the end."""


class Joined:
    """A body of which the beginning was read already."""

    def __init__(self, beginning: list[bytes], body: Body, rest: AsyncIterator[bytes]) -> None:
        self._beginning = beginning
        self._body = body
        self._rest = rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._beginning:
            yield part
        async for part in self._rest:
            yield part

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._body.aclose()
