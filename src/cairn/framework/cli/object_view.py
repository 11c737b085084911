"""What `cairn info` shows of a class of durable objects: its kind, its state, what can be asked of it. Nothing is called."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from cairn.framework.cli.output import line, shortened
from cairn.framework.modules import shown
from cairn.runtime.durable import DurableObject, is_fiber_method
from cairn.runtime.object import ObjectApplication

#: What a class may have of its own, in the order in which a client meets it.
_HOOKS = (
    "opens", "readonly", "protocol", "tags", "on_start", "on_connect", "on_message", "on_close", "on_request",
    "validate_state", "on_state_changed", "on_fiber_recovered",
)  # fmt: skip


def view(application: ObjectApplication) -> dict[str, Any]:
    """For programs."""
    cls = application.cls
    names = [name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")]
    methods = [method for name in names if (method := application.methods.get(name)) is not None and method.is_callable]
    fibers = [name for name, found in inspect.getmembers(cls, is_fiber_method) if not hasattr(DurableObject, name)]
    return {
        "kind": application.kind,
        "class": cls.__qualname__,
        "place": _place(cls),
        "description": (inspect.getdoc(cls) or "").partition("\n")[0] if cls.__doc__ else "",
        "state": list(application.shape.names),
        "callables": [
            {
                "name": method.name,
                "signature": _signature(method.function),
                "stream": method.is_stream,
                "read_only": method.read_only,
                "timeout_seconds": method.timeout,
            }
            for method in methods
        ],
        "fibers": fibers,
        "hooks": [name for name in _HOOKS if getattr(cls, name) is not getattr(DurableObject, name)],
    }


def show(view: dict[str, Any]) -> None:
    """For people."""
    line(f"{view['kind']}  ({view['place']}, durable object)")
    if view["description"]:
        line(f"  {shortened(view['description'])}")
    line(f"  state         {', '.join(view['state']) or 'none'}")
    if view["hooks"]:
        line(f"  hooks         {', '.join(view['hooks'])}")
    for method in view["callables"]:
        rules = [*(["stream"] if method["stream"] else []), *(["read only"] if method["read_only"] else [])]
        ruled = f"  [{', '.join(rules)}]" if rules else ""
        line(f"  callable      {method['name']}{method['signature']}{ruled}")
    if view["fibers"]:
        line(f"  fibers        {', '.join(view['fibers'])}")


def _signature(function: Any) -> str:
    """As it is written, without `self`."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    return str(signature.replace(parameters=parameters)).replace("'", "")


def _place(cls: type) -> str:
    try:
        file, number = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return ""
    return f"{shown(Path(file))}:{number}" if file else ""
