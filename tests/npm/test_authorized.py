"""The published `@flue/sdk` against `cairn serve --auth tokens`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.http.serving import CAIRN, Server, serving
from tests.npm.judging import of, sound
from tests.npm.node import Node

pytestmark = pytest.mark.system


def cairn_token(server: Server, *arguments: str) -> str:
    """`cairn token …`, typed beside the running server."""
    command = [CAIRN, "token", *arguments, "--store", str(server.store)]
    done = subprocess.run(command, cwd=server.project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_token_opens_what_it_was_made_for(node: Node, project: Path) -> None:
    """S12, X5, X11: the right token does everything; without one, or with a wrong one, 401; one that may only read cannot send,
    and sees other conversations no more than if they did not exist; one that is taken away ends the stream it had opened,
    while a client that renews its headers goes on."""
    with serving(project, options=["--auth", "tokens"]) as server:
        right = cairn_token(server, "create", "right")
        reader = cairn_token(server, "create", "reader", "--grant", "read", "--agent", "clerk/others")
        spare = cairn_token(server, "create", "spare")
        answers = {"revoke": lambda: cairn_token(server, "revoke", "spare")}
        found = node.run("authorized.mjs", server.url, project, right, reader, spare, answers=answers)

        assert not any(token in server.output for token in (right, reader, spare)), "a token was logged"  # X8

    for live in ("sse", "polled"):
        sound(of(found, "right")[live])
    assert of(found, "right")["read"]["text"] == "Let me look. \n\nIt is fine."
    others = of(found, "others")
    assert {name: others[name].get("status") for name in others if name != "reads"} == {
        "none": 401,
        "wrong": 401,
        "sends": 403,
        "aborts": 403,
        "elsewhere": 404,
        "missing": 404,
    }
    assert len(others["reads"]["accepted"]["messages"]) == 2
    assert others["elsewhere"]["body"]["error"]["type"] == others["missing"]["body"]["error"]["type"] == "stream_not_found"
    revoked = of(found, "revoked")
    sound(revoked)
    assert revoked["stubborn"] == {"error": 401, "text": 2}
