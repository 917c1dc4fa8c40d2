"""Try to run code in Dask processes: python -m tests.cluster.intruder ADDRESS...

Prints a JSON object: address as it was tried → the user that the code ran as, or the name of the error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from distributed.core import rpc
from distributed.protocol.pickle import dumps
from distributed.security import Security

SECONDS = 4.0


async def attempt(address: str) -> int | str:
    """Ask a scheduler, nanny or worker to run a function, as `Client.run` and `Client.run_on_scheduler` do."""
    security = Security.temporary() if address.startswith("tls") else Security()
    result: int | str = "nothing"
    for operation in ("run", "run_function"):
        remote = rpc(address, timeout=SECONDS, connection_args=security.get_connection_args("client"))
        try:
            answer = await asyncio.wait_for(getattr(remote, operation)(function=dumps(os.getuid)), 2 * SECONDS)
            return int(answer["result"])
        except Exception as error:  # noqa: BLE001 - whatever it is refused with
            result = type(error).__name__
        finally:
            await remote.close_rpc()
    return result


async def main(addresses: list[str]) -> None:
    hosts = [address.partition("://")[2] for address in addresses]
    tried = [f"{scheme}://{host}" for host in hosts for scheme in ("tcp", "tls")]
    results = await asyncio.gather(*map(attempt, tried))
    print(json.dumps(dict(zip(tried, results, strict=True))))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
