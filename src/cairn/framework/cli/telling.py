"""What `cairn dev` says: to people in lines, to programs as one JSON object a line.

Laws. What a project's files are called and say cannot drive the terminal, and no key of theirs is shown. Each line is out when
what it says is true: whoever waits for it can rely on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from cairn.framework.cli.output import json_text, one_line
from cairn.framework.cli.visible import visible, visible_json
from cairn.framework.cli.workshop import Running
from cairn.framework.modules import shown

if TYPE_CHECKING:
    from cairn.framework.app import App
    from cairn.framework.reload import Change
    from cairn.harness.agent import Agent


class Teller:
    """For people."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def ready(self, url: str, app: App) -> None:
        names = [f"{agent.name}  {_place(agent)}".rstrip() for agent in app.agents]
        self._line(f"cairn dev is ready at {url}")
        for number, name in enumerate(names or ["none yet: write agents/NAME.py with `name = Agent('name', model=…)`"]):
            self._line(f"  {'agents' if number == 0 else '      '}  {name}")
        self._line(f"  store   {shown(getattr(app.store, 'path', ''))}")
        self._line("  edits   are live for the next turn; Ctrl-C ends this")

    def attached(self, running: Running) -> None:
        self._line(f"cairn dev of this project runs already (process {running.pid}) at {running.url}")
        self._line("  this one ends with it; Ctrl-C leaves it alone")

    def changed(self, change: Change) -> None:
        files = ", ".join(shown(file) for file in change.files[:3]) + (" …" if len(change.files) > 3 else "")
        if change.problems:
            self.problems(change.problems)
            return
        more = [f"new: {name}" for name in change.added] + [f"gone: {name}" for name in change.removed]
        self._line(" · ".join([f"↻ {files}", "live for the next turn", *more]))

    def problems(self, problems: Sequence[str]) -> None:
        for problem in problems:
            self._line(f"✗ {one_line(problem)}")
        if problems:
            self._line("  the last good agents answer on; this is read again when a file changes")

    def note(self, text: str) -> None:
        sys.stderr.write(f"cairn: {one_line(text)}\n")

    def _line(self, text: str) -> None:
        self._out.write(f"{visible(text)}\n")
        self._out.flush()


class JsonTeller(Teller):
    """For programs: one JSON object a line."""

    def ready(self, url: str, app: App) -> None:
        agents = [agent.name for agent in app.agents]
        self._say("dev.ready", url=url, agents=agents, store=getattr(app.store, "path", ""), pid=os.getpid())

    def attached(self, running: Running) -> None:
        self._say("dev.attached", url=running.url, pid=running.pid)

    def changed(self, change: Change) -> None:
        if change.problems:
            self.problems(change.problems)
            return
        self._say(
            "dev.reloaded",
            files=list(change.files),
            added=list(change.added),
            removed=list(change.removed),
            seconds=round(change.seconds, 3),
        )

    def problems(self, problems: Sequence[str]) -> None:
        if problems:
            self._say("dev.problems", problems=[one_line(problem) for problem in problems])

    def _say(self, event: str, **fields: Any) -> None:
        self._out.write(f"{visible_json(json_text({'event': event, **fields}))}\n")
        self._out.flush()


def _place(agent: Agent[Any]) -> str:
    path, _, line = agent.place.rpartition(":")
    return f"{shown(path)}:{line}" if path else ""
