"""`cairn run`, killed at every durable write of the demo's job, and the same command again.

Method: a victim is the real command whose store kills its process with SIGKILL before or after exactly its n-th durable write.
Then the plain command runs in the same folder. The log at the death, the log at the end, and the file in which every call and
every request left a line must agree. Two victims live at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.system.lives import KILLED, Lives, Log, asked_again, broken, in_words

from cairn.framework.demo.knowledge import Step
from cairn.framework.demo.script import next_move
from cairn.harness.render import UNKNOWN_OUTCOME
from cairn.testing.providers import ProviderServer, Reply
from cairn.testing.providers.script import Call, Entry, ProviderRequest, Say
from cairn.testing.providers.server import serve_in_thread

pytestmark = pytest.mark.system

#: How many jobs live at a time: the machine has two cores.
SIDE_BY_SIDE = 2

#: Characters a second at which a text takes several appends.
SLOW = "1500"

#: Where, of the writes of a job with streamed text, victims die in it.
IN_TEXT = range(4, 84, 8)

#: Over the wire each life imports a provider's library: a sample, more on demand.
OVER_THE_WIRE = ("before:4", "after:5", "after:9", "before:14", "after:19", "after:26", "before:33", "after:40")

Problems = tuple[str, list[str]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, int]:
    """The job without a kill: its log, and how many durable writes it makes."""
    folder = tmp_path_factory.mktemp("reference")
    lives = Lives.of(folder, CAIRN_TEST_WRITES=str(folder / "writes"))
    code, errors = lives.live(crash="")
    found = lives.log()
    assert code == 0, errors
    assert found is not None
    return found, int((folder / "writes").read_text())


def kill_and_go_on(parent: Path, point: str, reference: Log, **environ: str) -> Problems:
    """One job: a life that ends at the point, and the same command again. What was not as promised."""
    lives = Lives.of(parent, **environ)
    with lives.begin(point) as victim:
        victim.communicate()
    if victim.returncode != KILLED:
        return point, [] if victim.returncode == 0 else [f"the victim ended with {victim.returncode}"]
    died = lives.log()
    if died is None or not died.standing.is_settled:
        code, errors = lives.live()
        if code != 0:
            return point, [f"the same command again ended with {code}: {errors}"]
    end = lives.log()
    before = asked_again(lives, died.standing, victim.pid) if died is not None else []
    problems = [*broken(lives, died, end, reference), *before]
    if not problems:
        lives.job.remove()
    return point, problems


def all_of(points: Iterable[str], play: Callable[[str], Problems]) -> list[Problems]:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(play, points))


def test_cairn_run_killed_at_every_durable_write_goes_on(tmp_path: Path, reference: tuple[Log, int]) -> None:
    """S1 S2 S3 S7 S8 S9 L1, T3: no lost input, no finished effect repeated, no finished answer asked for again, and the
    result is the one of an uninterrupted run; at every write there is."""
    log, writes = reference
    # After each of them; and before every third, where what was about to be written is lost with the process.
    points = [f"after:{number}" for number in range(1, writes + 1)] + [f"before:{number}" for number in range(1, writes + 1, 3)]

    problems = all_of(points, lambda point: kill_and_go_on(tmp_path, point, log))

    assert writes >= 25
    assert not in_words(problems), in_words(problems)


def test_cairn_run_killed_in_the_middle_of_its_text_keeps_what_was_said(tmp_path: Path, reference: tuple[Log, int]) -> None:
    """S10, S11: the text that readers saw stays, the model goes on after its last character, the reply holds it once."""
    points = [f"after:{number}" for number in IN_TEXT]

    problems = all_of(points, lambda point: kill_and_go_on(tmp_path, point, reference[0], CAIRN_DEMO_PACE=SLOW))

    assert not in_words(problems), in_words(problems)


# --- over the Anthropic wire -----------------------------------------------------------------------------------------


def story(entries: Iterable[Entry]) -> tuple[list[Step], int, str]:
    """(finished calls with their results, finished answers, what was said of an unfinished one), of a provider's request."""
    told = list(entries)
    results = {entry.call: entry.text for entry in told if entry.role == "tool"}
    steps: list[Step] = []
    finished, said = 0, ""
    for entry, after in zip(told, [*told[1:], None], strict=True):
        if entry.role != "assistant":
            continue
        if not entry.calls and after is not None and '<note kind="continue">' in after.text:
            said += entry.text
            continue
        finished, said = finished + 1, ""
        steps += [Step(name, arguments, results[id]) for id, name, arguments in entry.calls if id in results]
    return steps, finished, said


def engineer(request: ProviderRequest) -> Reply:
    """The demo's script as a provider: it knows what the request tells it, and nothing else."""
    steps, finished, said = story(request.entries)
    move = next_move(steps)
    text = move.text.removeprefix(said)
    chunks = [text[start : start + 24] for start in range(0, len(text), 24)]
    calls = [Call(name, arguments, id=f"toolu_{finished + 1}_{place}") for place, (name, arguments) in enumerate(move.calls)]
    # A write per event, and time between two: a text takes several appends.
    return Reply.of(*([Say(*chunks)] if chunks else []), *calls, bytes_per_write=100_000, seconds_between=0.01)


def over_the_wire(parent: Path, point: str, reference: Log) -> Problems:
    """As `kill_and_go_on`, with a provider that counts its requests."""
    with serve_in_thread(engineer) as server:
        lives = Lives.of(parent, "--model", "anthropic:claude-sonnet-4-6", **server.environ)
        with lives.begin(point) as victim:
            victim.communicate()
        asked = len(server.requests)
        died = lives.log()
        if victim.returncode != KILLED:
            return point, [f"the victim ended with {victim.returncode}; it was to die"]
        code, errors = (0, "") if died is not None and died.standing.is_settled else lives.live()
        if code != 0:
            return point, [f"the same command again ended with {code}: {errors}"]
        return point, [*broken(lives, died, lives.log(), reference), *wrongly_asked(server, asked, died)]


def wrongly_asked(server: ProviderServer, asked: int, died: Log | None) -> list[str]:
    """What the requests after the death say against the log at the death."""
    if died is None:
        return []
    wrong = []
    later = [story(request.entries) for request in server.requests[asked:]]
    for _, finished, _ in later:
        if finished < died.standing.answers:
            wrong.append(f"finished answer {finished + 1} was requested again")
    if died.standing.is_asked and died.standing.said and later and len(later[0][2]) < died.standing.said:
        wrong.append(f"the model was shown {len(later[0][2])} characters of the {died.standing.said} it had said")
    if any(call.repeat == "never" for call in died.standing.open):
        told = [step for steps, _, _ in later for step in steps if step.result == UNKNOWN_OUTCOME]
        wrong += [] if told else ["the model was not told that an outcome is unknown"]
    return wrong


def test_over_the_wire_no_finished_answer_is_requested_again(tmp_path: Path, reference: tuple[Log, int]) -> None:
    """S8 S9 S11, counted at the provider: after a kill it is asked for what is missing, and shown what was said."""
    points = os.environ.get("CAIRN_TEST_WIRE_POINTS", "").split() or OVER_THE_WIRE

    problems = all_of(points, lambda point: over_the_wire(tmp_path, point, reference[0]))

    assert not in_words(problems), in_words(problems)
