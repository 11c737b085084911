"""The published npm client `agents`, unmodified, on durable objects: under Node, against a real `cairn serve`.

Method: a script runs its scenarios with the package and reports what it saw; what the server has to go through in between is
done here when the script asks for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.http.serving import Server, serving
from tests.npm.judging import of
from tests.npm.node import Node
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = pytest.mark.system

TARGET = "site_app:app"
SITE = """
from cairn import App
from rooms import CLASSES

app = App(objects=CLASSES)
"""


def folder_of(place: Path) -> Path:
    """A project with the objects of these tests, and nothing else."""
    shutil.copy(Path(__file__).with_name("rooms.py"), place)
    (place / "site_app.py").write_text(SITE)
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(folder_of(tmp_path_factory.mktemp("site")), TARGET) as running:
        yield running


@pytest.fixture(scope="module")
def results(node: Node, server: Server) -> dict[str, Any]:
    found: dict[str, Any] = node.run("agent_calls.mjs", server.url, server.project)
    return found


def test_it_is_ready_with_identity_and_state(results: dict[str, Any]) -> None:
    """`ready` waits for the state that was announced; the name is the one it has to come back with."""
    found = of(results, "greeted")
    assert found["state"] == {"count": 0, "names": []}
    assert (found["name"], found["agent"], found["identified"]) == ("greeted%20%C3%A4", "room", True)
    assert len(found["identities"]) == 1


def test_a_state_reaches_the_others_and_does_not_come_back(results: dict[str, Any]) -> None:
    found = of(results, "shared")
    first, state = {"count": 0, "names": []}, {"count": 7, "names": ["x"]}
    assert found["sender"] == [[first, "server"], [state, "client"]]
    assert found["other"] == [[first, "server"], [state, "server"]]
    assert found["late"] == state


def test_calls_are_answered_once_and_in_the_exact_words(results: dict[str, Any]) -> None:
    """A hundred at once are a hundred changes; the caller's own state is not behind its answer."""
    found = of(results, "called")
    assert (found["added"], found["behind"], found["stub"]) == (2, False, 5)
    assert found["many"] == list(range(6, 106))
    words = ["no such luck", "Method hidden is not callable", "Method nope does not exist"]
    assert found["errors"] == [{"error": each} for each in words]
    assert found["state"]["count"] == 105


def test_streams_come_in_chunks(results: dict[str, Any]) -> None:
    three, none, broken = of(results, "streamed")
    assert three == {"result": None, "heard": [0, 1, 2, ["done", None]]}
    assert none == {"result": None, "heard": [["done", None]]}
    assert broken == {"error": "stopped at 2", "heard": [0, 1, ["error", "stopped at 2"]]}


def test_what_is_refused_is_said_in_the_clients_words(results: dict[str, Any]) -> None:
    assert of(results, "refused") == {"errors": ["State update rejected"] * 2, "there": 0}
    assert of(results, "readonly") == {"errors": ["Connection is readonly"], "call": {"error": "Connection is readonly"}}
    plain = of(results, "plain")
    assert plain["identified"] is False and plain["states"] == [] and plain["raw"] == ["heard 'hi'"]


def test_messages_of_the_objects_own_go_both_ways(results: dict[str, Any]) -> None:
    found = of(results, "spoken")
    assert found["other"] == ["welcome /", "local: hello"]
    assert found["one"] == ["welcome /", "binary"]


def test_a_call_that_the_client_gave_up_disturbs_no_other(results: dict[str, Any]) -> None:
    found = of(results, "slow")
    assert "timed out after 50ms" in found["call"]["error"]
    assert found["after"] == {"result": 1}


def test_sub_objects_are_reached_by_their_path(results: dict[str, Any]) -> None:
    found = of(results, "below")
    assert found["identity"] == [["a/ä", "desk"]]
    assert (found["noted"], found["state"]) == (2, {"notes": ["made", "by wire"]})
    (missing,) = found["missing"]
    assert missing["code"] == 1008


def test_agent_fetch_is_a_request_of_the_object(results: dict[str, Any]) -> None:
    found = of(results, "asked")
    told = found["told"]
    assert (found["status"], told["method"], told["path"], told["body"]) == (200, "POST", "/x/y", "b")
    assert told["headers"]["x-own"] == "1" and "authorization" not in told["headers"]
    assert found["odd"] == "asked"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("refused", 1008, "refused: the room is full"),
        ("unknown", 1008, "no such agent"),
        ("closing", 4001, "as you wish"),
        ("gone", 4410, "destroyed"),
    ],
)
def test_it_stops_where_it_cannot_get_better(results: dict[str, Any], name: str, code: int, words: str) -> None:
    """One connection, one error that says why, and calls that fail at once from then on."""
    found = of(results, "stopped")[name]
    assert found["codes"] == [code] and found["code"] == code
    assert words in found["message"]
    assert found["later"] == {"error": "Connection closed"}


def test_it_comes_through_kill_9_with_its_state(node: Node, project: Path) -> None:
    """S1, L2: what was committed is there, what was buffered is done once, who was connected is connected again."""
    with serving(project, TARGET) as server:
        answers = {"the end": server.kill, "the next life": server.restart}
        found = of(node.run("agent_lives.mjs", server.url, server.project, answers=answers), "through")
    assert found["cut"] == {"error": "Connection closed"}
    assert found["result"] == {"result": 7}
    for counts in found["states"]:
        assert set(counts) <= {6, 7} and counts == sorted(counts)
    assert found["connections"] == 2 and found["same"]
    assert all("kept" in names for names in found["names"])
    assert found["changed"] == [] and found["errors"] == []


def test_two_servers_on_one_store_are_one_object(node: Node, project: Path) -> None:
    """State, calls, streams, errors and what is broadcast cross over; when the owner is killed, the other one goes on."""
    with serving(project, TARGET) as one, serving(project, TARGET) as two:
        found = of(node.run("agent_two.mjs", one.url, project, two.url, answers={"kill the first": one.kill}), "together")
    assert found["begun"]["count"] == 1
    assert (found["forwarded"], found["behind"]) == (21, False)
    assert found["chunks"] == [0, 1, 2, 3] and found["stream"] == {"result": None}
    words = ["no such luck", "Method nope does not exist", "Method hidden is not callable"]
    assert found["errors"] == [{"error": each} for each in words]
    assert found["refused"] == ["State update rejected"]
    assert found["both"] == 2
    assert found["after"] == {"result": 22} and found["alone"]


def test_the_processes_of_one_server_are_one_object_and_tell_their_clients_to_come_back(project: Path) -> None:
    """Whichever process has the socket, its client sees what the others do; SIGTERM is 1012 for all of them, and each is
    heard once, by this life or the next."""
    with serving(project, TARGET, options=["--workers", "2"]) as server, ExitStack() as open_ones:
        url = server.url.replace("http", "ws") + "/agents/room/workers"
        clients = [open_ones.enter_context(connect(url, compression=None)) for _ in range(8)]
        for number, client in enumerate(clients, 1):
            client.send(json.dumps({"type": "rpc", "id": "1", "method": "add", "args": [1]}))
            for other in clients:
                while (state := _state(other.recv(20))) is None or state["count"] < number:
                    pass
        assert server.stop() == 0
        for client in clients:
            with pytest.raises(ConnectionClosed):
                while True:
                    client.recv(20)
            assert client.close_code == 1012
        assert "Traceback" not in server.output and "on_close" not in server.output
        server.start()
        with connect(server.url.replace("http", "ws") + "/agents/room/workers", compression=None) as after:
            while (state := _state(after.recv(20))) is None or len(state["names"]) < len(clients):
                pass
        assert set(state["names"]) <= {"left 1012", "left 1006"} and state["count"] == len(clients)


def _state(data: str | bytes) -> dict[str, Any] | None:
    frame = json.loads(data) if str(data).startswith("{") else {}
    found: dict[str, Any] | None = frame.get("state")
    return found
