"""A loopback provider as a process: `python -m cairn.testing.providers ["What to answer." [TIMES]]`.

It prints the variables that send every provider's client to it, one `export` per line, and answers each request with the
text, streamed TIMES times as one delta, until it is stopped.
"""

from __future__ import annotations

import asyncio
import sys

from cairn.testing.providers import ProviderServer, Reply, Say

DEFAULT = "Hello from a loopback provider."


def main() -> None:
    """Serves until the process is stopped."""
    text, times, *_ = [*sys.argv[1:3], DEFAULT, "1"] if len(sys.argv) < 2 else [*sys.argv[1:3], "1"]
    if not times.isdigit():
        sys.exit(__doc__)
    try:
        asyncio.run(_serve(Reply.of(Say(*[text] * int(times)))))
    except KeyboardInterrupt:
        pass


async def _serve(reply: Reply) -> None:
    server = ProviderServer(lambda _: reply)
    # A server that runs for days must not keep every request it ever saw.
    server.keep_requests = False
    async with server:
        for name, value in server.environ.items():
            print(f"export {name}={value}", flush=True)
        print("", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
