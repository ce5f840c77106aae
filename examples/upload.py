"""
Upload files to a service that is having a bad day, and lose none.

Run it with ``python examples/upload.py``: it starts such a service itself.
"""

from __future__ import annotations

import anyio

from providers.http import Client, checked, client
from resilience import CallRejected, ProviderRegistry, ProviderSettings, ResilientProvider, RetrySettings, Settings
from resilience.testing import MisbehavingProvider, Misbehaviour, serve

SETTINGS = Settings(defaults=ProviderSettings(retry=RetrySettings(max_attempts=5, base_delay=0.1)))


async def upload(uploads: ResilientProvider, http: Client, name: str, body: bytes) -> None:
    """Upload one file; when the call is refused, come back when we were told to."""
    put = checked(http.put)
    while True:
        try:
            reply = await uploads.execute(put, f"/files/{name}", content=body)
        except CallRejected as refused:
            print(f"{name}: {refused}")
            await anyio.sleep(refused.retry_after or 1.0)
        else:
            print(f"{name}: stored, {reply.json()['size']} bytes")
            return


async def main() -> None:
    """Start the service, and upload twenty files to it at once."""
    service = MisbehavingProvider(Misbehaviour(seed=1, errors=0.2, resets=0.1))
    uploads = ResilientProvider("uploads", registry=ProviderRegistry(SETTINGS))
    with serve(service) as url:
        async with client(base_url=url, trust_env=False) as http, anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(upload, uploads, http, f"file-{number}", b"content" * number)
    print(service)
    print(uploads.explain())


if __name__ == "__main__":
    anyio.run(main)
