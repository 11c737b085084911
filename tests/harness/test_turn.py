"""One model round-trip in virtual time: when deltas go out, how much at once, and how it ends whatever the stream does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn import Limits
from cairn.errors import ModelError, StoreBusy
from cairn.harness import records as h
from cairn.harness.messages import Text, ToolCall
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, ModelRequest, TextDelta, ThinkingDelta
from cairn.harness.turn import (
    DELTA_CHARACTERS,
    FLUSH_CHARACTERS,
    FLUSH_SECONDS,
    MESSAGE_CHARACTERS,
    Response,
    TurnStream,
    delta_records,
    recordable,
    whole_characters,
)
from cairn.runtime import records as r
from cairn.testing import Simulation, simulate

DONE = Completed((Text(text="…"),), "stop")

#: What a stream does: wait so many seconds, or give an event, or raise.
Script = Sequence[float | ModelEvent | BaseException]


@dataclass
class Timeline:
    """A model that gives its events at their times."""

    script: Script
    deaf: bool = False
    given: int = 0
    closed: bool = False
    spec = "timeline:model"
    context_window = None

    async def warm(self) -> None: ...

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        try:
            for part in self.script:
                if isinstance(part, float | int):
                    await self._sleep(part)
                elif isinstance(part, BaseException):
                    raise part
                else:
                    self.given += 1
                    yield part
        finally:
            self.closed = True

    async def _sleep(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                if not self.deaf:
                    raise


@dataclass
class Turned:
    response: Response = field(default_factory=Response)
    batches: list[tuple[float, list[h.MessageDelta]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def times(self) -> list[float]:
        return [round(time, 4) for time, _ in self.batches]

    @property
    def text(self) -> str:
        return "".join(record.text for _, batch in self.batches for record in batch)


def turn(
    *script: float | ModelEvent | BaseException,
    limits: Limits = Limits(),
    cut_at: float | None = None,
    append_seconds: float = 0.0,
    model: Timeline | None = None,
    failing: bool = False,
) -> Turned:
    """Carry out one request; each batch with the virtual time at which it was handed over."""
    turned = Turned()

    async def main(simulation: Simulation) -> None:
        async def append(records: Sequence[r.Record]) -> None:
            turned.batches.append((simulation.now(), list(records)))  # type: ignore[arg-type]
            if append_seconds:
                await asyncio.sleep(append_seconds)
            if failing:
                raise StoreBusy("not now")

        cut: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if cut_at is not None:
            asyncio.get_running_loop().call_later(cut_at, cut.set_result, "abort")
        stream = TurnStream(simulation.clock, limits, append)
        request = ModelRequest(model="m", system="", messages=())
        turned.response = await stream.run(model or Timeline(script), request, "m1", cut)
        turned.seconds = round(simulation.now(), 4)

    simulate(main, seed=0, faults=False)
    return turned


def text(characters: str | int) -> TextDelta:
    return TextDelta(0, characters if isinstance(characters, str) else "x" * characters)


# --- the cadence --------------------------------------------------------------------------------------------------------


def test_the_first_delta_of_a_quiet_stream_goes_out_at_once() -> None:
    """L5: leading edge: nobody waits 25 ms for the first word, nor for the first after a pause."""
    done = turn(1.0, text("a"), 1.0, text("b"), 1.0, text("c"), DONE)

    assert done.times == [1.0, 2.0, 3.0] and done.text == "abc"


def test_a_busy_stream_goes_out_every_25_ms() -> None:
    """L5: 1,000 deltas in a second are 40 batches, and none waits longer than that."""
    parts = [part for number in range(1_000) for part in (0.001, text(f"{number % 10}"))]
    done = turn(*parts, DONE)

    gaps = [later - earlier for earlier, later in zip(done.times, done.times[1:], strict=False)]
    assert all(FLUSH_SECONDS - 1e-4 <= gap <= FLUSH_SECONDS + 2e-3 for gap in gaps[:-1])
    assert 38 <= len(done.batches) <= 42 and len(done.text) == 1_000


def test_a_batch_goes_out_sooner_when_it_is_large() -> None:
    """L5: 8 KB are enough, whatever the clock says; memory never holds much more."""
    parts = [part for _ in range(50) for part in (0.001, text(2_048))]
    done = turn(*parts, DONE)

    sizes = [sum(len(record.text) for record in batch) for _, batch in done.batches]
    assert all(size >= FLUSH_CHARACTERS for size in sizes[1:-1]) and max(sizes) <= FLUSH_CHARACTERS + 2_048
    assert sum(sizes) == 50 * 2_048


def test_the_end_of_a_response_waits_for_nothing() -> None:
    """L5: what is left goes out with the end."""
    done = turn(text("a"), 0.001, text("b"), 0.001, text("c"), DONE)

    assert done.seconds == 0.002 and done.text == "abc" and done.response.completed is DONE


def test_a_slow_log_holds_the_stream_back() -> None:
    """S10: the provider is read as fast as the log takes it, within a batch: memory is bounded, and nothing is lost."""
    done = turn(*[text(1_024)] * 100, DONE, append_seconds=1.0)

    assert len(done.text) == 100 * 1_024
    assert max(sum(len(record.text) for record in batch) for _, batch in done.batches) <= 2 * FLUSH_CHARACTERS


def test_deltas_of_a_block_are_one_record_and_blocks_keep_their_order() -> None:
    """P1: reasoning, text, and text of another block are told apart."""
    events = [
        ThinkingDelta(0, "a"),
        ThinkingDelta(0, "b"),
        TextDelta(1, "c"),
        TextDelta(1, "d"),
        TextDelta(2, "e"),
        TextDelta(1, "f"),
    ]

    made = [(record.block, record.kind, record.text) for record in delta_records("m", events)]
    assert made == [(0, "thinking", "ab"), (1, "text", "cd"), (2, "text", "e"), (1, "text", "f")]


# --- sizes ----------------------------------------------------------------------------------------------------------------


def test_a_megabyte_at_once_is_cut_into_records() -> None:
    """S2: a record is never larger than the log takes."""
    done = turn(text(MESSAGE_CHARACTERS), DONE)

    records = [record for _, batch in done.batches for record in batch]
    assert len(done.text) == MESSAGE_CHARACTERS and max(len(record.text) for record in records) == DELTA_CHARACTERS
    assert done.response.completed is DONE


def test_a_response_longer_than_any_model_gives_ends_as_an_error() -> None:
    """L3: 10 MB in one event, or an endless stream: what fits is kept, the rest is not read."""
    done = turn(text("a"), text(10_000_000), DONE)

    assert done.text == "a" and done.response.error is not None
    assert done.response.error.kind == "invalid_request" and f"{MESSAGE_CHARACTERS:,}" in str(done.response.error)

    endless = Timeline([text(10_000)] * 1_000)
    done = turn(model=endless)

    assert done.response.error is not None and endless.closed and endless.given <= MESSAGE_CHARACTERS // 10_000 + 1


def test_a_stream_that_is_always_ready_lets_others_run() -> None:
    """L7: 10,000 events without a pause do not hold the loop."""
    ticks = 0

    async def main(simulation: Simulation) -> None:
        nonlocal ticks

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async def append(records: Sequence[r.Record]) -> None: ...

        ticking = asyncio.ensure_future(tick())
        cut: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        stream = TurnStream(simulation.clock, Limits(), append)
        model = Timeline([*[Activity()] * 10_000, DONE])
        await stream.run(model, ModelRequest(model="m", system="", messages=()), "m1", cut)
        ticking.cancel()

    simulate(main, seed=0, faults=False)

    assert ticks >= 50


# --- how it ends -----------------------------------------------------------------------------------------------------------


def test_f2_deadlines_are_measured_on_events() -> None:
    """F2: a ping is as good as a word; the first event has a deadline of its own."""
    limits = Limits(first_event_seconds=10, idle_seconds=5)

    alive = turn(9.0, Activity(), 4.0, Activity(), 4.0, text("a"), 4.0, DONE, limits=limits)
    assert alive.response.completed is DONE and alive.seconds == 21.0

    late = turn(11.0, text("a"), DONE, limits=limits)
    assert late.response.error is not None and late.response.error.kind == "timeout" and late.seconds == 10.0
    assert "did not begin to answer for 10 s" in str(late.response.error) and not late.response.started

    stalled = turn(1.0, text("a"), 1.0, Activity(), 6.0, DONE, limits=limits)
    assert stalled.response.error is not None and "sent nothing for 5 s" in str(stalled.response.error)
    assert stalled.seconds == 7.0 and stalled.response.started and stalled.response.text


def test_one_byte_a_second_is_alive() -> None:
    """L3: slow is not stalled; the submission's own running time bounds it."""
    done = turn(*[part for _ in range(100) for part in (1.0, text("x"))], DONE, limits=Limits(idle_seconds=5))

    assert done.response.completed is DONE and done.seconds == 100.0


@pytest.mark.parametrize("cut_at", [0.0, 0.5, 1.0, 1.01, 3.0])
def test_f1_a_cut_ends_it_at_once_and_what_arrived_is_in_the_log(cut_at: float) -> None:
    """F1: before the first event, at it, between two, in a pause."""
    model = Timeline([1.0, text("a"), 0.005, text("b"), 60.0, DONE])
    done = turn(model=model, cut_at=cut_at)

    assert done.response.cut == "abort" and done.seconds <= max(cut_at, 0.0) + 0.001 and model.closed
    assert done.text == ("" if cut_at < 1 else "ab" if cut_at > 1.001 else done.text)


def test_f1_a_deaf_stream_is_abandoned_after_two_seconds() -> None:
    """F1: it may go on, nobody listens."""
    done = turn(model=Timeline([text("a"), 1_000.0, text("late"), DONE], deaf=True), cut_at=5.0)

    assert done.response.cut == "abort" and done.seconds == 7.0 and done.text == "a"


def test_f8_a_response_that_is_complete_when_it_is_cut_is_kept() -> None:
    """F8, P19: it is paid for."""
    done = turn(text("a"), 1.0, DONE, cut_at=1.0)

    assert done.response.completed is DONE


@pytest.mark.parametrize(
    ("script", "kind", "started"),
    [
        ([], "network", False),
        ([text("a")], "network", True),
        ([ModelError("no", kind="auth")], "auth", False),
        ([text("a"), ModelError("later", kind="overload")], "overload", True),
        ([text("a"), RuntimeError("bug")], "unknown", True),
        ([ThinkingDelta(0, "hm"), ConnectionResetError()], "unknown", True),
    ],
)
def test_p19_every_way_to_fail_is_an_error_with_its_kind(script: list[Any], kind: str, started: bool) -> None:
    """P19: and what arrived before it is in the log."""
    done = turn(*script)

    assert done.response.error is not None and done.response.error.kind == kind
    assert done.response.started is started and done.response.text is (done.text == "a")


def test_a_log_that_refuses_ends_the_turn_with_its_error() -> None:
    """S14: it is no failure of the model's; the stream is closed."""
    model = Timeline([text("a"), 100.0, DONE])
    with pytest.raises(StoreBusy):
        turn(model=model, failing=True)

    assert model.closed


def test_a_cancelled_turn_keeps_what_arrived() -> None:
    """S10: a clean stop puts into the log what was there, and closes the stream."""
    batches: list[Any] = []
    model = Timeline([text("a"), 0.001, text("b"), 100.0, DONE])

    async def main(simulation: Simulation) -> None:
        async def append(records: Sequence[r.Record]) -> None:
            batches.extend(records)

        cut: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        stream = TurnStream(simulation.clock, Limits(), append)
        running = asyncio.ensure_future(stream.run(model, ModelRequest(model="m", system="", messages=()), "m1", cut))
        await asyncio.sleep(0.002)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    simulate(main, seed=0, faults=False)

    assert "".join(record.text for record in batches) == "ab" and model.closed


# --- what is recorded -------------------------------------------------------------------------------------------------------


def halved(character: str) -> str:
    """As two escapes of JSON that were decoded one by one."""
    code = ord(character) - 0x10000
    return character if code < 0 else chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF))


@given(st.text(st.characters(), max_size=30), st.integers(0, 30))
def test_characters_that_were_cut_in_two_are_whole_again(said: str, place: int) -> None:
    """S14: the two halves of each surrogate pair, as a sloppy server sends them, are one character; text stays as it is."""
    halves = "".join(halved(character) for character in said)

    assert whole_characters(halves) == whole_characters(said)
    whole_characters(halves[:place]).encode()


@given(st.lists(st.sampled_from(["", "a", "a_2", "b", "x" * 64]), max_size=6), st.sets(st.sampled_from(["a", "b", "a_2"])))
def test_every_call_has_an_id_of_its_own(ids: list[str], taken: set[str]) -> None:
    """S5: whatever the provider gave; ids that are good are kept."""
    made = recordable([ToolCall(id=id, name="look", arguments={}) for id in ids], taken)

    names = [block.id for block in made if isinstance(block, ToolCall)]
    assert len(set(names)) == len(ids) and not taken & set(names) and all(0 < len(name) <= 64 for name in names)
    for place, id in enumerate(ids):
        if id and id not in {*taken, *ids[:place], *names[:place]}:
            assert names[place] == id
