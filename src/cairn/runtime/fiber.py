"""Durable execution: a fiber is work that survives its process.

A fiber's method may be called again from its first line after an interruption or a park; everything between steps may run
again, so effects belong in steps. Steps and waits are identified by their explicit names (there is no counter, so parallel
branches cannot diverge): once their outcome is recorded, the record answers.

Laws. The fiber asks the fold where it is; nothing here remembers across an await what the log does not say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec

from cairn.errors import FiberFailed, StepNameReused, UsageError, WaitExpired
from cairn.runtime import records as r
from cairn.runtime.answering import APPROVAL, Approval
from cairn.runtime.client import Client, Settlement
from cairn.runtime.encoding import as_json
from cairn.runtime.instance import Instance
from cairn.runtime.parking import Parking
from cairn.runtime.settings import ANSWER_SECONDS, FIBER_NAMES_MAX
from cairn.runtime.state import Came, FiberState
from cairn.runtime.step import Step, StepRepeat, run_step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody answered to what a fiber asked."""

    raw: bytes
    by: str
    """Who, as whoever let them in says."""
    at: float

    def value(self, type: Any = Any) -> Any:
        return msgspec.json.decode(self.raw, type=type)

    @property
    def approved(self) -> bool:
        """Whether it is a yes to what asked for an approval; anything else is none."""
        return self._approval().answer == "approve"

    @property
    def reason(self) -> str:
        """Of a no, if one was given."""
        return self._approval().reason

    def _approval(self) -> Approval:
        try:
            return msgspec.json.decode(self.raw, type=Approval)
        except msgspec.MsgspecError:
            return Approval("reject", "it was answered with something that is neither yes nor no")


@dataclass(frozen=True, slots=True)
class InFlight:
    """A step that ran when its process died; what became of it is unknown."""

    name: str
    repeat: str
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `on_fiber_recovered` may return instead of None: the fiber settles so, and its method is not called again."""

    outcome: r.Outcome
    result: Any = None
    error: str = ""


class StepOptions(TypedDict, total=False):
    """What `Fiber.step` takes beside the name and the callback; what each means is said there."""

    repeat: StepRepeat
    scope: str
    type: Any
    retry: r.Retry | None
    timeout: float | None
    announce: bool
    also: Callable[[], Sequence[r.Record]]
    blobs: Callable[[], Sequence[str]]


class Fiber:
    """A handle on one running fiber: what its method is given."""

    def __init__(self, instance: Instance, id: str) -> None:
        self.instance = instance
        self.id = id
        self.parking = Parking(self)
        self._names: set[tuple[str, str]] = set()

    @property
    def state(self) -> FiberState:
        """Its fold. Raises FiberFailed when it is settled already (aborted from outside, say)."""
        found = self.instance.runtime.fiber(self.id)
        if found is None:
            raise FiberFailed(f"fiber '{self.id}' is not in the log of {self.instance.address}")
        return found

    @property
    def attempt(self) -> int:
        """1 at the first try, one more after each interruption."""
        return self.state.attempt

    @property
    def snapshot(self) -> Any:
        """What `stash` kept last, or None."""
        return msgspec.json.decode(self.state.snapshot)

    @property
    def interrupted(self) -> tuple[InFlight, ...]:
        """The steps that were under way when an earlier owner of the instance died: `keyed`, `never` and announced ones."""
        steps = self.state.steps.items()
        flying = [(key, step) for key, step in steps if not step.done and (step.started_epoch or 0) < self.instance.epoch]
        found = []
        for key, step in flying:
            scope, _, name = key.partition("\x1f")
            if step.started_epoch is not None:
                found.append(InFlight(name, step.repeat, scope))
        return tuple(found)

    @property
    def occurrence(self) -> float | None:
        """The time at which the schedule that started it was due, in wall seconds; None when none did."""
        return self.state.occurrence

    def arguments(self, type: Any = Any) -> Any:
        return msgspec.json.decode(self.state.arguments, type=type)

    async def stash(self, value: Any) -> None:
        """The fiber's checkpoint is `value` (JSON). *Durable* when it returns."""
        with self.parking.working():
            await self.instance.together.append([r.FiberStashed(fiber=self.id, value=as_json("what was stashed", value))])

    @overload
    async def step(self, name: str, callback: Callable[..., Awaitable[T]], **how: Unpack[StepOptions]) -> T: ...

    @overload
    async def step(self, name: str, callback: Callable[..., T], **how: Unpack[StepOptions]) -> T: ...

    async def step(
        self,
        name: str,
        callback: Callable[..., Any],
        *,
        repeat: StepRepeat = "safe",
        scope: str = "",
        type: Any = Any,
        retry: r.Retry | None = None,
        timeout: float | None = None,
        announce: bool = False,
        also: Callable[[], Sequence[r.Record]] = tuple,
        blobs: Callable[[], Sequence[str]] = tuple,
    ) -> Any:
        """Run `callback` once and record its result; when the step is known, the record answers instead.

        *Durable* when it returns. *Idempotent* by (fiber, scope, name). A `safe` step that was running when its process
        died runs again; a `keyed` or `never` one was preceded by an intent record (S8), and what is known of it then is
        nothing: `keyed` runs again with the same `key`, `never` raises StepUnknown. `announce` records that a `safe` step
        began, for `interrupted`. A callback with a parameter is given a `Try`.

        A try that raises, or takes longer than `timeout` seconds, is repeated as `retry` says; the wait in between parks.
        `also` gives records that become facts together with the result, `blobs` what those refer to.
        *Cancelled*: nothing is recorded.
        *Raises* what the callback raised (recorded only when it is NonRetryable), StepFailed, StepNameReused, StepUnknown,
        TimeoutError, Fenced.
        """
        self._take("step", f"{scope}\x1f{name}", name)
        found = await run_step(self, Step(name, callback, repeat, scope, retry, timeout, announce, also, blobs))
        return msgspec.json.decode(found, type=type)

    def key(self, name: str, scope: str = "") -> str:
        """The idempotency key of a keyed step: the same at every repeat, different for every other step anywhere."""
        return f"{self.instance.uid}:{self.id}:{scope}:{name}" if scope else f"{self.instance.uid}:{self.id}:{name}"

    # --- waiting: *Durable*, *idempotent* by name; the method is unwound, no task and no memory is held, and it is called
    # again when the wait is over

    async def sleep(self, name: str, seconds: float) -> None:
        """Return once `seconds` have passed since this sleep was first reached, in whatever process."""
        self._take("wait", name, name)
        if not isinstance(seconds, int | float):
            raise UsageError(f"sleep '{name}': {seconds!r} is no number of seconds")
        if name not in self.state.waited:
            await self._wait(name, "sleep", self.instance.clock.wall() + seconds)

    async def sleep_until(self, name: str, when: datetime | float) -> None:
        """Return once the wall clock shows `when` (a datetime with a zone, or seconds since the epoch)."""
        self._take("wait", name, name)
        if isinstance(when, datetime) and when.tzinfo is None:
            raise UsageError(
                f"sleep '{name}': {when.isoformat()} has no time zone; say which: when.replace(tzinfo=ZoneInfo('…'))"
            )
        at = when.timestamp() if isinstance(when, datetime) else when
        if name not in self.state.waited and at > self.instance.clock.wall():
            await self._wait(name, "sleep", at)

    async def wait(self, event: str, *, timeout: float | None = None, name: str | None = None, type: Any = Any) -> Any:
        """The payload of the next signal `event` to this fiber, or to any of the instance. One sent before is not lost.

        Each signal is taken once, by the oldest fiber that waits. To wait for one event twice, name the waits apart.
        *Raises* WaitExpired after `timeout` seconds, here and at every later attempt.
        """
        name = name if name is not None else event
        self._take("wait", name, name)
        came = self.state.came.get(name)
        if came is None:
            until = None if timeout is None else self.instance.clock.wall() + timeout
            came = await self._wait(name, "signal", until, event=event)
        if came.timed_out:
            raise WaitExpired(f"no signal '{event}' came for fiber '{self.id}' in time")
        return msgspec.json.decode(came.value, type=type)

    async def ask(
        self,
        name: str,
        question: Any = None,
        *,
        expires: float | None = ANSWER_SECONDS,
        by: Sequence[str] = (),
        approval: bool = False,
    ) -> Answer:
        """What somebody answers to `question` (JSON, shown to them): the first answer to exactly this, by whoever gives it, or
        by one of `by`. With `approval` it is a yes or a no with a reason: `answer.approved`, `answer.reason`.

        An answer is bound to the name and to the digest of the question. *Raises* WaitExpired after `expires` seconds.
        """
        self._take("wait", name, name)
        came = self.state.came.get(name)
        if came is None:
            as_json(f"question '{name}'", question)
            raw = msgspec.json.encode(question, order="sorted")
            until = None if expires is None else self.instance.clock.wall() + expires
            names = (by,) if isinstance(by, str) else tuple(by)
            event, request = APPROVAL if approval else "", msgspec.Raw(raw)
            came = await self._wait(name, "answer", until, event=event, digest=digest_of(raw), request=request, by=names)
        if came.timed_out:
            raise WaitExpired(f"nobody answered '{name}' of fiber '{self.id}' in time")
        return Answer(bytes(came.value), came.by, came.at)

    # --- other fibers of the same instance

    async def start(self, name: str, method: str | Callable[..., Any], *arguments: Any, retry: r.Retry | None = None) -> str:
        """Another fiber of this instance is accepted; its id. *Durable*. *Idempotent* by `name`, like a step."""
        key = f"{self.id}:{name}"
        known = self.instance.runtime.keys.get(key)
        if known is not None:
            return known
        with self.parking.working():
            called = method if isinstance(method, str) else method.__name__
            client = client_of(self.instance)
            return (await client.accept(self.instance.address.id, called, list(arguments), key=key, retry=retry)).fiber

    async def join(self, fiber: str, *, name: str | None = None, type: Any = Any) -> Any:
        """What another fiber of this instance returned, once it has settled. *Raises* FiberFailed."""
        name = name if name is not None else f"join {fiber}"
        self._take("wait", name, name)
        if fiber not in self.instance.runtime.settled:
            await self.instance.sync()
            if fiber in self.instance.runtime.fibers:
                await self._wait(name, "fiber", None, event=fiber)
        known = self.instance.runtime.settled.get(fiber)
        if known is None or known.outcome is None:
            raise FiberFailed(f"fiber '{fiber}' of {self.instance.address} is not known; it was never accepted, or forgotten")
        return Settlement(fiber, known.outcome, known.ordinal, known.result, known.error, known.answered_by).value(type)

    async def run(self, name: str, method: str | Callable[..., Any], *arguments: Any, type: Any = Any) -> Any:
        """Start another fiber and join it. *Raises* FiberFailed."""
        return await self.join(await self.start(name, method, *arguments), type=type)

    # --- its end

    async def settle(
        self,
        outcome: r.Outcome,
        *,
        result: msgspec.Raw = r.NULL,
        error: r.ErrorInfo | None = None,
        dead: bool = False,
    ) -> None:
        """The fiber has its one outcome (S7)."""
        at = self.instance.clock.wall()
        await self.instance.together.append(
            [r.FiberSettled(fiber=self.id, outcome=outcome, at=at, result=result, error=error, dead=dead)]
        )

    def _take(self, what: str, identity: str, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise UsageError(f"a {what} of fiber '{self.id}' has {name!r} for a name; it is known by a text of its own")
        if (what, identity) in self._names:
            raise StepNameReused(
                f"{what} '{name}' was used twice in fiber '{self.id}'; name them apart: name=f\"{name}:{{item.id}}\""
            )
        state = self.state
        is_known = identity in state.steps or identity in state.waited or identity in state.waits
        if not is_known and len(state.steps) + len(state.waited) >= FIBER_NAMES_MAX:
            raise UsageError(
                f"fiber '{self.id}' has {FIBER_NAMES_MAX:,} steps and waits, all it may have; go on in another fiber: "
                f"await fiber.start('next', …)"
            )
        self._names.add((what, identity))

    async def _wait(
        self,
        name: str,
        on: r.WaitKind,
        until: float | None,
        *,
        event: str = "",
        digest: str = "",
        request: msgspec.Raw = r.NULL,
        by: tuple[str, ...] = (),
    ) -> Came:
        now = self.instance.clock.wall()
        waiting = r.FiberWaiting(
            fiber=self.id, name=name, at=now, on=on, until=until, event=event, digest=digest, request=request, by=by
        )
        runtime = self.instance.runtime
        if on == "signal" and any(s.name == event and s.fiber in (None, self.id) for s in runtime.signals):
            # It is here already: taken without a park, unless another fiber is faster.
            with self.parking.working():
                await self.instance.together.append([waiting])
        if name not in self.state.waited:
            await self.parking.wait(waiting)
        return self.state.came.get(name) or Came(now)


def digest_of(question: bytes) -> str:
    """What an answer has to name, so that it cannot be given to another question."""
    return f"sha256:{hashlib.sha256(question).hexdigest()}"


def client_of(instance: Instance) -> Client:
    """For requests of an instance to itself."""
    tenant = instance.address.tenant
    return Client(instance.store, instance.application, clock=instance.clock, ids=instance.ids, tenant=tenant)
