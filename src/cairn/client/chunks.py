"""What a followed conversation consists of, and the frames it comes in. Pure: bytes go in, chunks come out.

Laws. A chunk is what the server says and nothing else; fields this version does not know stay in it. Bytes may be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.errors import RemoteError

#: Before everything.
BEGINNING = "-1"
#: The chunk that says which life of the log is read; it is part of no conversation.
CHECKPOINT = "stream-checkpoint"

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of a conversation: `type` says which, the rest is in `fields` (`chunk["delta"]`)."""

    type: str
    fields: Mapping[str, Any]
    position: Position
    offset: str
    """Following after this offset shows everything that came after this chunk; what shares its batch may come twice."""

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name, default)

    @property
    def submission(self) -> str | None:
        """The message it belongs to, where the server says so."""
        message = self.fields.get("message")
        found = message.get("submissionId") if isinstance(message, dict) else self.fields.get("submissionId")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Frame:
    """Chunks that came together. `next` is where to read on, when the server said so with them."""

    chunks: tuple[Chunk, ...] = ()
    incarnation: str | None = None
    next: str | None = None
    is_up_to_date: bool = False


_decode_chunks = msgspec.json.Decoder(list[dict[str, Any]]).decode


class _Control(msgspec.Struct, rename="camel"):
    stream_next_offset: str
    up_to_date: bool = False


def frame_of(data: bytes, *, next: str | None = None, is_up_to_date: bool = False) -> Frame:
    """A JSON array of chunks. Raises RemoteError for what is none."""
    try:
        found = _decode_chunks(data)
        incarnation = _incarnation_in(found)
        placed = [(each, (each["position"]["batch"], each["position"]["index"])) for each in found if _is_placed(each)]
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise RemoteError(f"the server sent chunks that cannot be read: {error!r}", type="invalid_stream") from None
    chunks = []
    for number, (fields, position) in enumerate(placed):
        # Within a batch there is no offset: whoever stops there reads the batch again.
        is_last = number + 1 == len(placed) or placed[number + 1][1][0] != position[0]
        chunks.append(Chunk(fields["type"], fields, position, _offset(position[0] if is_last else position[0] - 1)))
    return Frame(tuple(chunks), incarnation, next, is_up_to_date)


def _incarnation_in(found: list[dict[str, Any]]) -> str | None:
    return next((each["incarnation"] for each in found if each["type"] == CHECKPOINT), None)


def _is_placed(fields: dict[str, Any]) -> bool:
    return bool(fields["type"] != CHECKPOINT)


def _offset(ordinal: int) -> str:
    return BEGINNING if ordinal < 0 else f"{0:016}_{ordinal:016}"


class EventStream:
    """Server-sent events as frames. *Raises* RemoteError for what is none."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes."""
        self._rest.append(data)
        if b"\n" not in data:  # a frame may be large, and come in many parts
            return
        *lines, rest = b"".join(self._rest).split(b"\n")
        self._rest = [rest]
        for line in lines:
            line = line.removesuffix(b"\r")
            if line:
                self._field(line)
            else:
                frame = self._dispatch()
                if frame is not None:
                    yield frame

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"data":
            self._data.append(value)

    def _dispatch(self) -> Frame | None:
        event, data = self._event, b"\n".join(self._data)
        self._event, self._data = "", []
        if event == "data":
            return frame_of(data)
        if event != "control":
            return None
        try:
            control = msgspec.json.decode(data, type=_Control)
        except msgspec.MsgspecError as error:
            raise RemoteError(f"the server sent a control frame that cannot be read: {error}", type="invalid_stream") from None
        return Frame(next=control.stream_next_offset, is_up_to_date=control.up_to_date)
