"""The tables name classes of libraries: each has to exist, or a slip of the pen would never be noticed."""

from __future__ import annotations

import importlib
import warnings

import pytest

from resilience.classify._libraries import _LIBRARIES

MODULES = {
    "aiohttp": ["aiohttp", "aiohttp.http_exceptions"],
    "anthropic": ["anthropic", "anthropic._exceptions"],
    "anyio": ["anyio"],
    "asyncio": ["asyncio"],
    "asyncpg": ["asyncpg", "asyncpg.exceptions"],
    "azure": ["azure.core.exceptions"],
    "botocore": ["botocore.exceptions"],
    "concurrent": ["concurrent.futures"],
    "coredis": ["coredis.exceptions"],
    "google": ["google.api_core.exceptions", "google.auth.exceptions", "google.cloud.storage.exceptions"],
    "grpc": ["grpc", "grpc.aio"],
    "gzip": ["gzip"],
    "http": ["http.client"],
    "httpcore": ["httpcore"],
    "httpcore2": ["httpcore2"],
    "httpx": ["httpx"],
    "httpx2": ["httpx2"],
    "json": ["json"],
    "obstore": ["obstore.exceptions"],
    "openai": ["openai", "openai._exceptions"],
    "pydantic": ["pydantic.v1"],
    "pydantic_core": ["pydantic_core"],
    "redis": ["redis.exceptions"],
    "requests": ["requests.exceptions"],
    "resilience": ["resilience.errors"],
    "trio": ["trio"],
    "urllib": ["urllib.error"],
    "urllib3": ["urllib3.exceptions"],
    "zlib": ["zlib"],
}


def is_error_of(root: str, name: str) -> bool:
    """Whether *name* is an error that comes from the package *root*."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [getattr(importlib.import_module(module), name, None) for module in MODULES[root]]
    return any(
        isinstance(cls, type) and issubclass(cls, BaseException) and cls.__module__.split(".")[0] == root
        for cls in found
    )


@pytest.mark.parametrize("root", _LIBRARIES)
def test_named_classes_exist(root: str) -> None:
    """Every name in a library's table is an error of that library, or of one that shares the table."""
    sharing = [other for other, table in _LIBRARIES.items() if table is _LIBRARIES[root]]
    unknown = [name for name in _LIBRARIES[root] if not any(is_error_of(other, name) for other in sharing)]
    assert unknown == []
    assert any(is_error_of(root, name) for name in _LIBRARIES[root])
