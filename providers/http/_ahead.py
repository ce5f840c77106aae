"""Reading the body of an error ahead: what it says decides what the error is, and frees its connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from providers.http._library import Library, Response

# Errors explain themselves in less; `classify` looks no further either.
_LONGEST: Final = 65_536


async def read_ahead(response: Response, library: Library) -> Any:
    """
    Read the body of *response*, unless it is long, and put in its place one that can still be read.

    Returns:
        A response to judge: the same status and headers, and the content if all of it came.
    """
    body = response.stream
    if isinstance(body, library.in_memory):
        return _judged(response, library, b"".join([part async for part in body]))
    parts: list[bytes] = []
    size = 0
    rest = body.__aiter__()
    try:
        async for part in rest:
            parts.append(part)
            size += len(part)
            if size > _LONGEST:
                response.stream = library.joined(parts, body, rest)
                return _judged(response, library, None)
    except library.transport_error as error:  # the status has come, and the client reads the rest as it would have
        await body.aclose()
        response.stream = library.joined(parts, body, _raising(error))
        return _judged(response, library, None)
    except BaseException:
        await body.aclose()
        raise
    await body.aclose()
    content = b"".join(parts)
    response.stream = library.in_memory(content)
    return _judged(response, library, content)


def _judged(response: Response, library: Library, content: bytes | None) -> Any:
    try:
        return library.response(response.status_code, headers=response.headers, content=content)
    except Exception:  # its content is not what its headers say
        return library.response(response.status_code, headers=response.headers)


async def _raising(error: Exception) -> AsyncIterator[bytes]:
    raise error
    yield b""  # what makes it an iterator
