"""How one client comes to a stream that runs: the offer, its acknowledgement, the replay. One table.

Laws. Pure. A client that was offered a stream gets nothing of it before it has said that it listens, and then all of it from
the beginning; one that was there when the stream began gets it as it comes. A question about a stream is always answered: by
an offer, by "wait", or by "there is none". There is one stream at a time.

    away      nothing streams, or nothing that this client was told of
    offered   it was told that something streams, and has not said that it listens
    live      it gets what is said
"""

from __future__ import annotations

from enum import Enum


class Standing(Enum):
    AWAY = "away"
    OFFERED = "offered"
    LIVE = "live"


class Event(Enum):
    FOUND = "a stream ran when it came"
    BEGAN = "a stream began"
    AWAITED = "a stream began that it had asked for"
    ASKED = "it asks for a stream, and one runs"
    ACKNOWLEDGED = "it listens to the stream that runs"
    MISTAKEN = "it listens to another stream than the one that runs"
    ENDED = "the stream ended"


class Do(Enum):
    NOTHING = "nothing"
    OFFER = "offer the stream"
    TELL = "tell it from the beginning, as it comes"
    REPLAY = "tell all of it there is, as a replay, and go on live"
    OVER = "say that the stream it means is over"
    END = "say how it ended"


_A, _O, _L = Standing.AWAY, Standing.OFFERED, Standing.LIVE

TABLE: dict[Standing, dict[Event, tuple[Standing, Do]]] = {
    _A: {
        Event.FOUND: (_O, Do.OFFER),
        Event.BEGAN: (_L, Do.TELL),
        Event.AWAITED: (_O, Do.OFFER),
        Event.ASKED: (_O, Do.OFFER),
        Event.ACKNOWLEDGED: (_L, Do.REPLAY),
        Event.MISTAKEN: (_A, Do.OVER),
        Event.ENDED: (_A, Do.END),
    },
    _O: {
        Event.FOUND: (_O, Do.OFFER),
        Event.BEGAN: (_L, Do.TELL),
        Event.AWAITED: (_O, Do.OFFER),
        Event.ASKED: (_O, Do.OFFER),
        Event.ACKNOWLEDGED: (_L, Do.REPLAY),
        Event.MISTAKEN: (_O, Do.OVER),
        Event.ENDED: (_A, Do.END),
    },
    _L: {
        Event.FOUND: (_L, Do.NOTHING),
        Event.BEGAN: (_L, Do.TELL),
        Event.AWAITED: (_O, Do.OFFER),
        # It asks although it is told: whoever listened in that tab has given up, and another one wants all of it.
        Event.ASKED: (_O, Do.OFFER),
        # Offered twice, it answers twice: it has it already.
        Event.ACKNOWLEDGED: (_L, Do.NOTHING),
        Event.MISTAKEN: (_L, Do.OVER),
        Event.ENDED: (_A, Do.END),
    },
}


class Handshake:
    """Where one client stands."""

    def __init__(self) -> None:
        self.standing = Standing.AWAY

    @property
    def is_live(self) -> bool:
        return self.standing is Standing.LIVE

    def on(self, event: Event) -> Do:
        self.standing, do = TABLE[self.standing][event]
        return do
