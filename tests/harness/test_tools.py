"""Tools and hooks made from functions: what is called, where, with what, and what the model reads of it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn.errors import StepNameReused, ToolError, UsageError
from cairn.harness.context_face import Context
from cairn.harness.function_tool import as_tool, compile_hook, compile_tool, tool
from cairn.harness.messages import Image, Text
from cairn.harness.tools import NO_OUTPUT, Tool, ToolResult, result_of
from cairn.testing.calls import Call


@dataclass
class Case:
    escalated: bool = False
    count: int = 0


def run(tool: Tool, arguments: dict[str, Any], call: Call[Any] | None = None) -> Any:
    """What the loop does: validate, then call."""
    return asyncio.run(tool.run(call or Call(), tool.validate(arguments)))  # type: ignore[arg-type]


# --- a tool is a function ---------------------------------------------------------------------------------------------


def test_a_decorated_function_is_the_very_same_function() -> None:
    """Architecture: a tool stays unit-testable; decorators return the plain callable."""

    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    assert tool(double) is double
    assert double(3) == 6
    assert as_tool(double).name == "double"
    assert as_tool(double) is as_tool(double)


def test_options_say_what_a_repeat_and_a_batch_mean() -> None:
    """S9, P5: everything the loop must know of a tool is on it."""

    @tool(name="charge-card", description="Take money.", repeat="keyed", sequential="money", timeout=3)
    async def charge(cents: int) -> None: ...

    compiled = as_tool(charge)

    assert (compiled.name, compiled.spec.description) == ("charge-card", "Take money.")
    assert (compiled.repeat, compiled.sequential, compiled.timeout_seconds) == ("keyed", "money", 3)
    assert compiled.place.startswith(f"{__file__}:")


def test_a_tool_is_never_repeated_unless_it_says_so() -> None:
    """S9: the default class is the one that cannot do harm."""

    @tool
    def push() -> None: ...

    assert as_tool(push).repeat == "never"
    assert as_tool(push).sequential is False


def test_an_async_tool_runs_on_the_loop_and_a_sync_one_never_does() -> None:
    """A blocking tool does not hold up every other instance of the process."""

    @tool
    async def here() -> int:
        return threading.get_ident()

    @tool
    def there() -> int:
        return threading.get_ident()

    assert run(as_tool(here), {}) == threading.get_ident()
    assert run(as_tool(there), {}) != threading.get_ident()


def test_a_sync_tool_sees_the_context_variables_of_its_caller() -> None:
    """What tracing put there is there in the thread, too."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")

    @tool
    def look() -> str:
        return variable.get()

    async def main() -> Any:
        variable.set("traced")
        return await as_tool(look).run(Call(), {})

    assert asyncio.run(main()) == "traced"


def test_a_sync_wrapper_around_an_async_function_is_awaited_on_the_loop() -> None:
    """A decorator that forgot to be async does not turn a result into a coroutine object."""

    async def fetch(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @functools.wraps(fetch)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return fetch(*args, **kwargs)

    wrapped.__wrapped__ = fetch  # type: ignore[attr-defined]

    assert run(compile_tool(wrapped), {"n": 4}) == 4


def test_a_partial_a_method_and_a_callable_object_are_functions_too() -> None:
    """Whatever has a signature and can be called."""

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        async def sell(self, what: str) -> str:
            """Sell."""
            return f"{self.name}: {what}"

        async def __call__(self, what: str) -> str:
            return what

    shop = Shop("A")

    assert run(as_tool(shop.sell), {"what": "tea"}) == "A: tea"
    assert run(compile_tool(shop, name="shop"), {"what": "tea"}) == "tea"
    assert run(compile_tool(functools.partial(shop.sell, what="x"), name="sell"), {}) == "A: x"


def test_arguments_arrive_as_the_types_the_function_asks_for() -> None:
    """P7: `"42"` for an integer, null for an optional field: the tool gets 42 and its own default."""

    @tool
    def search(text: str, limit: int = 10, tags: list[str] = ["default"]) -> Any:  # noqa: B006
        return text, limit, tags

    assert run(as_tool(search), {"text": "a", "limit": "42", "tags": None}) == ("a", 42, ["default"])


def test_the_context_is_found_by_its_annotation_and_hidden_from_the_model() -> None:
    """P7: wherever it stands and whatever it is called."""

    @tool
    def escalate(reason: str, context: Context[Case]) -> str:
        context.state.escalated = True
        context.progress("half way")
        return f"{reason} {context.call} {context.key} {context.conversation}"

    call = Call(Case())

    assert list(as_tool(escalate).spec.parameters["properties"]) == ["reason"]
    assert run(as_tool(escalate), {"reason": "late"}, call) == "late call_1 key_1 conversation"
    assert call.changes() == {"escalated": True}
    assert call.progress_shown == ["half way"]


def test_a_tool_that_was_written_for_a_state_or_sandbox_says_so_when_there_is_none() -> None:
    """P6: an error result a person can act on, not an AttributeError."""

    @tool
    def use(ctx: Context[Case]) -> bool:
        return ctx.state.escalated

    @tool
    def look(ctx: Context[Case]) -> str:
        return ctx.sandbox.cwd

    with pytest.raises(UsageError, match="state=YourDataclass"):
        run(as_tool(use), {})
    with pytest.raises(UsageError, match="no sandbox"):
        run(as_tool(look), {})


def test_what_a_tool_raises_reaches_the_loop_as_it_is() -> None:
    """P6: the loop, not the face, turns it into an error result."""

    @tool
    def fail() -> None:
        raise ToolError("no such order")

    with pytest.raises(ToolError, match="no such order"):
        run(as_tool(fail), {})


# --- steps ------------------------------------------------------------------------------------------------------------


def test_steps_answer_a_repeat_from_what_was_recorded() -> None:
    """S9, F4: a `resume` tool runs again from its first line, its finished steps do not."""
    done: list[str] = []

    @tool(repeat="resume")
    async def ship(ctx: Context[None], order: str) -> str:
        label = await ctx.step("label", lambda: done.append("label") or f"L-{order}")
        return f"{label} {await ctx.step('send', lambda: done.append('send') or 'sent')}"

    first = Call[None]()
    assert run(as_tool(ship), {"order": "7"}, first) == "L-7 sent"
    again = Call[None](steps_done={"label": "L-old"})
    assert run(as_tool(ship), {"order": "7"}, again) == "L-old sent"

    assert done == ["label", "send", "send"]


def test_a_step_in_a_tool_that_is_never_run_again_is_an_error() -> None:
    """S9: its record could never be used, so it would only look safe."""

    @tool
    async def ship(ctx: Context[None]) -> None:
        await ctx.step("label", lambda: 1)

    with pytest.raises(UsageError, match="repeat='resume'"):
        run(as_tool(ship), {})


def test_one_step_name_is_used_once_per_call() -> None:
    """S9: the name is the identity; there is no hidden counter that concurrent steps could disagree on."""

    @tool(repeat="resume")
    async def twice(ctx: Context[None]) -> None:
        await ctx.step("a", lambda: 1)
        await ctx.step("a", lambda: 2)

    with pytest.raises(StepNameReused):
        run(as_tool(twice), {})


# --- what is refused --------------------------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def fine() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (generator, {}, "is a generator"),
        (async_generator, {}, "is a generator"),
        (lambda: None, {}, "'<lambda>' cannot be a tool's name"),
        (fine, {"name": "two words"}, "cannot be a tool's name"),
        (fine, {"name": "n" * 65}, "cannot be a tool's name"),
        (fine, {"repeat": "always"}, "use one of never, keyed, safe, resume"),
        (fine, {"timeout": 0}, "more than zero"),
        (fine, {"retries": 3}, "has no option 'retries'"),
        (fine, {"time_out": 3}, "did you mean 'timeout'?"),
        (int, {}, "is not a function"),
    ],
)
def test_a_tool_that_cannot_work_is_refused_at_definition(
    function: Callable[..., Any], options: dict[str, Any], said: str
) -> None:
    """P6: the mistake is found where it is written."""
    with pytest.raises(UsageError) as raised:
        compile_tool(function, **options)

    assert said in str(raised.value)


@pytest.mark.parametrize("thing", [3, "search", None, Case])
def test_what_is_no_tool_is_refused_where_tools_are_listed(thing: Any) -> None:
    """P6: `tools=["search"]` is answered in words."""
    with pytest.raises(UsageError, match="is not a tool"):
        as_tool(thing)


# --- what the model reads of a result ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (None, NO_OUTPUT),
        ("", NO_OUTPUT),
        (7, "7"),
        (True, "true"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ([], "[]"),
        (Case(True, 2), '{"escalated":true,"count":2}'),
        (ToolResult("done"), "done"),
        (ToolResult(()), NO_OUTPUT),
        (Text(text="block"), "block"),
    ],
)
def test_a_returned_value_is_text_or_json_to_the_model(value: Any, text: str) -> None:
    """P2: one rule for every tool."""
    result = result_of("look", value)

    assert result.content == (Text(text=text),)
    assert not result.is_error


def test_blocks_pass_through_and_details_stay_off_the_model() -> None:
    """P11: content is the model's, details are for people."""
    picture = Image(mime_type="image/png", data=b"x")

    assert result_of("look", [Text(text="see"), picture]).content == (Text(text="see"), picture)
    full = ToolResult((picture,), is_error=True, terminate=True, details={"a": 1})
    assert result_of("look", full) == full


def test_a_file_name_that_is_no_utf_8_can_be_recorded() -> None:
    """What could not be encoded would stop the instance; it is escaped where it enters."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    for value in (name, ToolResult(name), [Text(text=name)]):
        assert result_of("look", value).content == (Text(text="caf\\udce9"),)
    assert result_of("look", {"name": name}).is_error


def test_a_value_that_is_no_json_does_not_hide_that_the_call_was_made() -> None:
    """The effect happened; the model must not be led to repeat it."""
    result = result_of("look", threading.Lock())

    assert result.is_error
    assert "ran to its end" in result.content[0].text  # type: ignore[union-attr]


scalars = st.none() | st.text(max_size=20) | st.integers() | st.binary(max_size=8)


@settings(max_examples=50)
@given(st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=6))
def test_any_value_gives_a_result_that_can_be_stored_and_sent(value: Any) -> None:
    """T19: never an exception, never empty, always encodable."""
    result = result_of("look", value)

    assert result.content
    assert all(block.text.encode() for block in result.content if isinstance(block, Text))


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_a_hook_takes_the_context_the_event_both_or_neither() -> None:
    """One rule for the three seams; the order of parameters does not matter."""

    def neither() -> None: ...
    def only_event(stop: Any) -> str:
        return stop

    async def only_context(ctx: Context[Case]) -> str:
        ctx.state.count += 1
        return "again"

    def both(stop: str, ctx: Context[Case]) -> str:
        return f"{stop} {ctx.call}"

    call = Call(Case())
    answers = [
        asyncio.run(compile_hook("on_stop", hook).run(call, "event")) for hook in (neither, only_event, only_context, both)
    ]

    assert answers == [None, "event", "again", "event call_1"]
    assert call.changes() == {"count": 1}


def test_an_empty_answer_of_a_hook_is_no_answer() -> None:
    """An empty text cannot send a model back to work."""
    assert asyncio.run(compile_hook("on_stop", lambda: "").run(Call(), None)) is None


@pytest.mark.parametrize(
    ("function", "said"),
    [(lambda a, b: None, "at most one parameter"), (generator, "is a generator"), (lambda *a: None, "*a")],
)
def test_a_hook_that_could_not_be_called_is_refused_at_definition(function: Any, said: str) -> None:
    """F6: a hook's mistake is found before a run depends on it."""
    with pytest.raises(UsageError) as raised:
        compile_hook("on_stop", function)

    assert said in str(raised.value)


def test_a_hook_that_returns_something_else_than_text_says_so() -> None:
    """F6: a named failure, not a strange message to the model."""
    with pytest.raises(UsageError, match="returned int; return a text or None"):
        asyncio.run(compile_hook("on_stop", lambda: 3).run(Call(), None))
