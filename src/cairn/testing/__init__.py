"""What Cairn is tested with, for you to test with. Each name is imported when it is first used.

simulation   a whole system in one thread from one seed: `simulate`, `Simulation`, `Process`, `sometimes`, `seeds`
faults       a store that crashes, stops, lags and forgets: `FaultyStore`, `Crash`
exhaustive   every combination of bounded choices: `every_choice`
history      what was asked and answered, and whether it is allowed: `History`, `RecordingStore`, `check`
loop         the seeded event loop below the simulation: `SimulatedLoop`, `Deadlock`, `Livelock`
virtual      the simulation's time and names: `SimulatedClock`, `SeededIds`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cairn.testing.exhaustive import Choose as Choose
    from cairn.testing.exhaustive import every_choice as every_choice
    from cairn.testing.loop import Deadlock as Deadlock
    from cairn.testing.loop import Livelock as Livelock
    from cairn.testing.loop import SimulatedLoop as SimulatedLoop
    from cairn.testing.simulation import Crashed as Crashed
    from cairn.testing.simulation import Process as Process
    from cairn.testing.simulation import Simulated as Simulated
    from cairn.testing.simulation import Simulation as Simulation
    from cairn.testing.simulation import seeds as seeds
    from cairn.testing.simulation import simulate as simulate
    from cairn.testing.simulation import sometimes as sometimes
    from cairn.testing.virtual import SeededIds as SeededIds
    from cairn.testing.virtual import SimulatedClock as SimulatedClock

_HOME = {
    "Choose": "exhaustive",
    "Crashed": "simulation",
    "Deadlock": "loop",
    "Livelock": "loop",
    "Process": "simulation",
    "SeededIds": "virtual",
    "Simulated": "simulation",
    "SimulatedClock": "virtual",
    "SimulatedLoop": "loop",
    "Simulation": "simulation",
    "every_choice": "exhaustive",
    "seeds": "simulation",
    "simulate": "simulation",
    "sometimes": "simulation",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"cairn.testing has no {name!r}; it has: {', '.join(sorted(__all__))}")
    return getattr(importlib.import_module(f"cairn.testing.{home}"), name)
