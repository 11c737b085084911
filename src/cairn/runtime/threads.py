"""A bounded pool of threads for functions that are not `async`: they must not stop the event loop, nor the process.

Daemon threads: a call that never returns must not keep a process alive that has drained (the standard pool joins its
threads at exit). On a simulated loop a thread is refused (`run_in_executor` raises) unless the pool is `inline`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from cairn.runtime.settings import THREADS_MAX

T = TypeVar("T")
P = ParamSpec("P")


class Threads:
    """Runs plain functions beside the event loop, at most `limit` at a time; the others wait their turn."""

    def __init__(self, limit: int = THREADS_MAX, *, inline: bool = False) -> None:
        self._executor = None if inline else _DaemonExecutor(limit)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns or raises, called in a thread with the caller's context variables.

        *Cancelled*: before it began, it is not called; after, the thread goes on by itself and its result is dropped.
        """
        if self._executor is None:
            return function(*args, **kwargs)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: context.run(function, *args, **kwargs))

    async def call_any(self, function: Callable[[], Any]) -> Any:
        """The outcome of a callback of either colour: an `async` one on the loop, a plain one in a thread.

        A plain function that returns an awaitable (`lambda: search(topic)`) is called in a thread and awaited here.
        """
        result = function() if is_async(function) else await self.call(function)
        return await result if inspect.isawaitable(result) else result

    def close(self) -> None:
        """Idle threads end; a thread that is busy ends after its call, if ever."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


#: For a lone instance outside any worker: plain functions are called where they stand.
INLINE = Threads(inline=True)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an `async def`, a method or a partial of one, or an object with such a call."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class _DaemonExecutor(Executor):
    """Threads are started when a call finds none idle, up to the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._guard:
            if self._closed:
                raise RuntimeError("the pool of threads is closed: its worker has stopped")
            self._calls.put((future, lambda: fn(*args, **kwargs)))
            if self._calls.qsize() > self._idle and self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"cairn-sync-{self._threads}", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            with self._guard:
                self._idle += 1
            item = self._calls.get()
            with self._guard:
                self._idle -= 1
            if item is None:
                return
            _perform(*item)
            del item  # an idle thread must not keep its last call's result alive

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._guard:
            self._closed = True
            threads = self._threads
        while cancel_futures:
            try:
                item = self._calls.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[0].cancel()
        for _ in range(threads):
            self._calls.put(None)


def _perform(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except StopIteration as error:
        # A future of asyncio refuses a StopIteration, and whoever awaits it would wait for ever.
        future.set_exception(RuntimeError(f"the function raised StopIteration({error.value!r})"))
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
