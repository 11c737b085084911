"""Reading the body of a request: counted as it arrives, on time, and never more of it in memory than it may.

Laws. Bytes are counted where they arrive, whatever Content-Length says or does not say. A body that is arriving holds little
memory: the rest is in a temporary file; a large one needs a place, of which there are few. Compressed bodies are refused, so
that no small body becomes a large one. What is parsed is bounded in depth and in the number of its parts before it is parsed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from itertools import accumulate
from tempfile import SpooledTemporaryFile
from typing import TypeVar

import msgspec

from cairn.framework.http import problems
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.problems import Problem
from cairn.framework.http.responses import Message

T = TypeVar("T")

RawHeaders = Iterable[tuple[bytes, bytes]]

#: A JSON string, or what is left of the body after a quote that nothing closes. It never goes back (`*+`), and nothing is left
#: to begin again from: linear, whatever is sent.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class LargeBodies:
    """The places for large bodies of one process."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0

    def take(self) -> None:
        """One place less. Raises Problem 429 when there is none."""
        if self._taken >= self._places:
            raise problems.too_many_requests(f"{self._places} large bodies are being received; send this one again.", 2.0)
        self._taken += 1

    def give_back(self) -> None:
        self._taken -= 1
        assert self._taken >= 0, "a place is given back once"


class Body:
    """The body of one request. Whoever makes it closes it when the request is over: a large one keeps its place until then,
    because what was decoded from it lives as long."""

    def __init__(
        self, receive: Callable[[], Awaitable[Message]], headers: RawHeaders, limits: HttpLimits, large: LargeBodies
    ) -> None:
        self._receive = receive
        self._headers = list(headers)
        self._limits = limits
        self._large = large
        self._is_large = False
        self._whole: bytes | None = None

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes. *Idempotent*. *Raises* Problem 400 408 413 415 429 499 507; what has not
        arrived by then is never kept."""
        if self._whole is None:
            self._refuse_early(limit)
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    self._whole = await self._receive_all(limit)
            except TimeoutError:
                raise problems.request_timeout(f"The body was not complete after {self._limits.body_seconds:g} s.") from None
            except OSError as error:
                raise problems.insufficient_storage(f"The body could not be kept while it arrived: {error.strerror}.") from None
        return self._whole

    def close(self) -> None:
        """The request is over. *Idempotent*."""
        self._whole = None
        if self._is_large:
            self._is_large = False
            self._large.give_back()

    def _refuse_early(self, limit: int) -> None:
        """What the headers alone forbid is refused before a byte of the body is read."""
        declared = {name.lower(): value for name, value in self._headers}
        encoding = declared.get(b"content-encoding", b"identity").strip().lower()
        if encoding != b"identity":
            raise problems.unsupported_media_type(
                f"Content-Encoding '{encoding[:40].decode('latin-1')}' is not accepted; send the body as it is."
            )
        length = declared.get(b"content-length")
        if length is None:
            return
        if not length.isdigit():
            raise problems.invalid_request("Content-Length is not a number.")
        if len(length) > 18 or int(length) > limit:
            raise _too_large(limit)

    async def _receive_all(self, limit: int) -> bytes:
        with SpooledTemporaryFile(max_size=self._limits.body_memory_bytes, prefix="cairn-body-") as file:
            count, more = 0, True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Problem("client_gone", 499, "The client went away.")
                piece: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                count += len(piece)
                if count > limit:
                    raise _too_large(limit)
                if count > self._limits.large_body_bytes and not self._is_large:
                    self._large.take()
                    self._is_large = True
                if count == len(piece) and not more:
                    return piece  # it came in one piece: most do
                file.write(piece)
            file.seek(0)
            return file.read()


def _too_large(limit: int) -> Problem:
    return problems.payload_too_large(f"At most {limit:,} bytes are accepted here.")


def decode(body: bytes, type: type[T], limits: HttpLimits) -> T:
    """The body as `type`. Pure. *Raises* Problem 400: `invalid_json` for what is no JSON, `invalid_request` for what does not
    fit, is nested too deeply or has too many parts."""
    try:
        # An attachment is most of a large body and holds no bracket: counting them is all that nearly every body costs.
        if body.count(b"[") + body.count(b"{") > limits.json_depth_max:
            _check_shape(body, limits)
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        raise problems.invalid_request(f"{error}.") from None
    except msgspec.DecodeError as error:
        raise problems.invalid_json(f"{error}.") from None
    except UnicodeDecodeError:
        raise problems.invalid_json("It is not UTF-8.") from None
    except RecursionError:
        raise _too_deep(limits.json_depth_max) from None


def _check_shape(body: bytes, limits: HttpLimits) -> None:
    brackets = _STRING.sub(b"", body).translate(None, _OTHERS)
    if len(brackets) > 2 * limits.json_parts_max:
        raise problems.invalid_request(f"The body has more than {limits.json_parts_max:,} lists and objects.")
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > limits.json_depth_max:
        raise _too_deep(limits.json_depth_max)


def _too_deep(depth_max: int) -> Problem:
    return problems.invalid_request(f"The body is nested more than {depth_max} deep.")
