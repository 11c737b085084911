"""What the model is told of its sandbox, and when: once for each that takes the place of another.

Laws. Pure. What was told is recorded with the head, so that a crash, another render or a turn that changes nothing tells it
no second time. A conversation that opens with a sandbox is told nothing of it but its tools and what its project says.
"""

from __future__ import annotations

from dataclasses import dataclass

from cairn.harness import records as h
from cairn.harness.head import Told, place
from cairn.harness.sandbox.protocol import Sandbox, SandboxFactory, WorkspaceSandbox

NONE = h.Attached()


@dataclass(frozen=True, slots=True)
class Environment:
    """The sandbox that a turn begins with."""

    attached: h.Attached = NONE
    name: str = ""
    cwd: str = ""
    is_own: bool = True
    """It is, or there is none because, the agent is defined so."""
    guidance: str = ""
    """What the project in its working directory says, where that was not told before."""


def environment_of(
    factory: SandboxFactory | None, sandbox: Sandbox | None, own: SandboxFactory | None, guidance: str = ""
) -> Environment:
    """That of a turn whose sandbox is `sandbox`, opened by `factory`, of an agent that has `own` by definition."""
    is_own = factory is own or factory == own
    if factory is None or sandbox is None:
        return Environment(is_own=is_own)
    attached = h.Attached(key=key_of(factory), is_workspace=isinstance(sandbox, WorkspaceSandbox))
    return Environment(attached, factory.name, sandbox.cwd, is_own, guidance)


def key_of(factory: SandboxFactory | None) -> str:
    """What is the same in every process for sandboxes with the same files: the factory's `key`, else its name."""
    return "" if factory is None else str(getattr(factory, "key", None) or factory.name)


def first(now: Environment) -> h.Attached | None:
    """What a conversation that opens with it records."""
    return None if now.is_own and not now.attached.key else now.attached


def change(told: Told | None, now: Environment) -> h.Attached | None:
    """What is recorded because the model was told of another one; None: it knows. Of a conversation that never recorded any,
    it is the agent's own that the model knows."""
    if told is None:
        return None if now.is_own else now.attached
    return None if told.sandbox.key == now.attached.key else now.attached


def is_unread(told: Told | None, now: Environment) -> bool:
    """What the project in its working directory says was not told before, and will be told with the sandbox."""
    if not now.attached.key or change(told, now) is None:
        return False
    return told is None or place(now.attached) not in told.read


def note(told: Told | None, now: Environment) -> h.Note:
    """What the model reads when this is recorded."""
    if not now.attached.key:
        return h.Note(kind="environment", text="There is no sandbox any more: its tools and its files are out of reach.")
    text = f"A sandbox is attached now: {now.name}. Its working directory is {now.cwd}."
    if told is not None and told.sandbox.key:
        same = told.sandbox.is_workspace and now.attached.is_workspace
        text += " It has the files of the one before." if same else " The files of the one before are not in it."
    return h.Note(kind="environment", text=f"{text}\n\n{now.guidance}" if now.guidance else text)
