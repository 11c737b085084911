"""Where an agent lives: instances that are their logs, fibers that survive their process, workers that run them.

The face of the layer; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cairn.errors import ReentrantCall as ReentrantCall
    from cairn.runtime.application import Application as Application
    from cairn.runtime.callables import callable as callable
    from cairn.runtime.client import Client as Client
    from cairn.runtime.client import Receipt as Receipt
    from cairn.runtime.client import Settlement as Settlement
    from cairn.runtime.connections import Connection as Connection
    from cairn.runtime.fiber import Fiber as Fiber
    from cairn.runtime.fiber import Verdict as Verdict
    from cairn.runtime.object import DurableObject as DurableObject
    from cairn.runtime.object import ObjectApplication as ObjectApplication
    from cairn.runtime.objects import Objects as Objects
    from cairn.runtime.owners import OwnerLocks as OwnerLocks
    from cairn.runtime.records import Retry as Retry
    from cairn.runtime.request import Request as Request
    from cairn.runtime.request import Response as Response
    from cairn.runtime.schedule import after as after
    from cairn.runtime.schedule import at as at
    from cairn.runtime.schedule import cron as cron
    from cairn.runtime.schedule import every as every
    from cairn.runtime.step import Try as Try
    from cairn.runtime.storage.sqlite import SqliteStore as SqliteStore
    from cairn.runtime.storage.store import Address as Address
    from cairn.runtime.storage.store import Store as Store
    from cairn.runtime.stub import Stub as Stub
    from cairn.runtime.worker import Worker as Worker
    from cairn.runtime.worker import WorkerSettings as WorkerSettings

_HOME = {
    "Address": "storage.store",
    "Application": "application",
    "Client": "client",
    "Connection": "connections",
    "DurableObject": "object",
    "Fiber": "fiber",
    "ObjectApplication": "object",
    "Objects": "objects",
    "OwnerLocks": "owners",
    "Receipt": "client",
    "ReentrantCall": "call_errors",
    "Request": "request",
    "Response": "request",
    "Retry": "records",
    "Settlement": "client",
    "SqliteStore": "storage.sqlite",
    "Store": "storage.store",
    "Stub": "stub",
    "Try": "step",
    "Verdict": "fiber",
    "Worker": "worker",
    "WorkerSettings": "worker",
    "after": "schedule",
    "at": "schedule",
    "callable": "callables",
    "cron": "schedule",
    "every": "schedule",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"cairn.runtime has no {name!r}; it has: {', '.join(sorted(__all__))}")
    return getattr(importlib.import_module(f"cairn.runtime.{home}"), name)
