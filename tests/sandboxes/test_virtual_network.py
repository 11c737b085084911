"""The network of a virtual sandbox: only what was granted, with credentials that stay outside."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.sandboxes.virtual_desk import VirtualDesk

from cairn.errors import UsageError
from cairn.harness.sandbox.virtual_network import Grant, Network
from cairn.harness.sandbox.virtual_wire import Fetch

pytestmark = [pytest.mark.slow]

SECRET = "Bearer kept-outside"


class Handler(BaseHTTPRequestHandler):
    """Says back what it was sent; /to?URL leads elsewhere."""

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if self.path.startswith("/below/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        has_key = self.headers.get("Authorization") == SECRET
        said = {
            "method": self.command,
            "path": self.path,
            "body": body.decode(),
            "key": has_key,
            "x": self.headers.get("X-Own"),
        }
        text = json.dumps(said).encode()
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_a_granted_host_is_reached_with_a_credential_no_script_sees(server: str) -> None:
    """X3, X8: the request has the key, the shell has not: neither in its variables nor in what it can read."""

    async def main() -> None:
        grant = Grant(f"{server}/below/", headers={"Authorization": SECRET}, private=True)
        async with VirtualDesk(network=grant) as desk:
            code, text = await desk.run(f"curl -s {server}/below/a?b=1 -H 'X-Own: mine' -H 'Authorization: forged'")
            assert code == 0
            assert json.loads(text) == {"method": "GET", "path": "/below/a?b=1", "body": "", "key": True, "x": "mine"}
            code, text = await desk.run(
                f"printf 'a=1' | curl -s -d @- -w '%{{http_code}}' -o out {server}/below/p; jq -r .body out"
            )
            assert (code, text) == (0, "200a=1\n")
            code, text = await desk.run(
                f"wget -q -O w {server}/below/w && jq -r .path w; curl -sf {server}/below/missing; echo $?"
            )
            assert text == "/below/w\n22\n"
            _, text = await desk.run("printenv; set; cat out w /proc/self/environ")
            assert "kept-outside" not in text

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "{server}/",
        "{server}/other",
        "{server}/belowx",
        "{server}/below/../other",
        "{server}/below/%2e%2e/other",
        "{server}/below/to?/other",
        "{server}/below/to?http://169.254.169.254/latest/meta-data",
        "https://example.com/",
        "http://user:pass@{host}/below/a",
        "http://localhost:{port}/below/a",
        "http://[::1]:{port}/below/a",
        "http://0x7f000001:{port}/below/a",
        "http://2130706433:{port}/below/a",
        "ftp://{host}/below/a",
        "file:///etc/passwd",
        "gopher://{host}/below/a",
    ],
)
def test_nothing_else_is_reached(server: str, url: str) -> None:
    """X3: other hosts, other spellings of the host, other paths and schemes, and where a redirect leads."""
    host = server.removeprefix("http://")
    asked = url.format(server=server, host=host, port=host.partition(":")[2])

    async def main() -> None:
        async with VirtualDesk(network=Grant(f"{server}/below/", private=True)) as desk:
            code, text = await desk.run(f"curl -sSL '{asked}'")
            assert code == 7, text
            assert "not granted" in text or "not a URL" in text, text

    asyncio.run(main())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "0.0.0.0",
    ],
)
def test_a_name_that_leads_to_a_private_address_is_refused(address: str) -> None:
    """X3: a grant is for what is public, unless it says otherwise."""

    async def main() -> None:
        url = f"http://{address}:9/"
        answer, _ = await Network.of(url).fetch(Fetch(method="GET", url=url, headers=[]), b"")
        assert "not public" in answer["error"]

    asyncio.run(main())


def test_a_grant_that_is_none_is_refused_where_it_is_written() -> None:
    """It says which, and it is not taken for something wider."""
    for given in ("*.example.com", "ftp://example.com", "https://user@example.com", "", "https://example.com/?q=1"):
        with pytest.raises(UsageError):
            Network.of(given)


def test_without_a_grant_there_is_no_request(server: str) -> None:
    """The shell's own curl reaches nothing either: its process has no network."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            code, text = await desk.run(f"curl -s {server}/below/a; wget -q -O - {server}/below/a; cat < /dev/tcp/127.0.0.1/80")
            assert code != 0
            assert '"path"' not in text

    asyncio.run(main())
