"""What Cairn is tested with, for you to test with. Each name is imported when it is first used.

simulation   a whole system in one thread from one seed: `simulate`, `Simulation`, `Process`, `sometimes`, `seeds`
faults       a store that crashes, stops and lags: `FaultyStore`, `Crash`, `crash_points`, `until_crash`
exhaustive   every combination of bounded choices: `every_choice`
history      what was asked of a store and what it answered: `History`, `RecordingStore`, `logs_of`
checker      whether a history is allowed: `check`, `check_log`, `Violation`
world        what happened outside, which no crash undoes: `World`, `Provider`, `Witness`
play         a program that lives in a world until its work is settled: `cairn.testing.play.play`, `Run`
scripted     a model that follows a script: `cairn.testing.scripted`
loop         the seeded event loop below the simulation: `Deadlock`, `Livelock`
virtual      the simulation's time and names: `SimulatedClock`, `SeededIds`
contract     what every store must do, as cases for yours: `CASES`, `run`
disk         a disk that is cut off or fails, below SQLite (needs apsw): `RecordingDisk`, `FailingDisk`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cairn.testing.checker import Violation as Violation
    from cairn.testing.checker import check as check
    from cairn.testing.checker import check_log as check_log
    from cairn.testing.exhaustive import every_choice as every_choice
    from cairn.testing.faults import Crash as Crash
    from cairn.testing.faults import FaultyStore as FaultyStore
    from cairn.testing.faults import OutcomeUnknown as OutcomeUnknown
    from cairn.testing.faults import crash_from_environment as crash_from_environment
    from cairn.testing.faults import crash_points as crash_points
    from cairn.testing.faults import until_crash as until_crash
    from cairn.testing.history import History as History
    from cairn.testing.history import Log as Log
    from cairn.testing.history import RecordingStore as RecordingStore
    from cairn.testing.history import logs_of as logs_of
    from cairn.testing.loop import Deadlock as Deadlock
    from cairn.testing.loop import Livelock as Livelock
    from cairn.testing.play import Run as Run
    from cairn.testing.simulation import Crashed as Crashed
    from cairn.testing.simulation import Process as Process
    from cairn.testing.simulation import Simulation as Simulation
    from cairn.testing.simulation import seeds as seeds
    from cairn.testing.simulation import simulate as simulate
    from cairn.testing.simulation import sometimes as sometimes
    from cairn.testing.virtual import SeededIds as SeededIds
    from cairn.testing.virtual import SimulatedClock as SimulatedClock
    from cairn.testing.world import Provider as Provider
    from cairn.testing.world import Witness as Witness
    from cairn.testing.world import World as World

_HOME = {
    "Crash": "faults",
    "Crashed": "simulation",
    "Deadlock": "loop",
    "FaultyStore": "faults",
    "History": "history",
    "Livelock": "loop",
    "Log": "history",
    "OutcomeUnknown": "faults",
    "Process": "simulation",
    "Provider": "world",
    "RecordingStore": "history",
    "Run": "play",
    "SeededIds": "virtual",
    "SimulatedClock": "virtual",
    "Simulation": "simulation",
    "Violation": "checker",
    "Witness": "world",
    "World": "world",
    "check": "checker",
    "check_log": "checker",
    "crash_from_environment": "faults",
    "crash_points": "faults",
    "every_choice": "exhaustive",
    "logs_of": "history",
    "seeds": "simulation",
    "simulate": "simulation",
    "sometimes": "simulation",
    "until_crash": "faults",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"cairn.testing has no {name!r}; it has: {', '.join(sorted(__all__))}")
    return getattr(importlib.import_module(f"cairn.testing.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
