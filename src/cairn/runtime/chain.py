"""Who waits for whom: the objects whose handlers are in the middle of the call that is being made.

Laws. A chain that came back to an object in it would wait for itself until a deadline: it is refused at once, by name. The
chain is a context variable in a process and travels with the call to another one. What a handler has left behind, a task of
its own, waits for nobody and is in no chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cairn.errors import ReentrantCall
from cairn.runtime.storage.store import Address


class _Link:
    """One object in the chain, for as long as its handler runs."""

    __slots__ = ("before", "is_open", "name")

    def __init__(self, name: str, before: tuple[str, ...]) -> None:
        self.name = name
        self.before = before
        self.is_open = True


_link: ContextVar[_Link | None] = ContextVar("cairn_chain", default=None)


def chain() -> tuple[str, ...]:
    """The objects that wait for what the present task does, the first caller first."""
    link = _link.get()
    return (*link.before, link.name) if link is not None and link.is_open else ()


def refuse_reentry(address: Address) -> None:
    """Raises ReentrantCall when the object waits for the present task already."""
    waiting = chain()
    if str(address) in waiting:
        text = " → ".join([*waiting, str(address)])
        raise ReentrantCall(
            f"the call comes back to {address}, whose handler waits for it: {text}. Return first, or call from a fiber",
            (*waiting, str(address)),
        )


@contextmanager
def handling(address: Address, before: tuple[str, ...]) -> Iterator[None]:
    """In this block a handler of the object runs, called by that chain."""
    link = _Link(str(address), before)
    token = _link.set(link)
    try:
        yield
    finally:
        link.is_open = False
        _link.reset(token)
