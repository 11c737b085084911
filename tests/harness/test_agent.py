"""An agent as its user writes it: what it holds, what a turn makes of it, and which mistakes are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cairn.errors import UsageError
from cairn.harness.agent import Agent
from cairn.harness.context_face import Context
from cairn.harness.function_tool import tool
from cairn.harness.messages import ToolSpec
from cairn.harness.sandbox.local import local
from cairn.harness.tools import Tool
from cairn.harness.turn_view import Turn


@dataclass
class Case:
    escalated: bool = False
    notes: list[str] = field(default_factory=list)


async def nothing(context: Any, arguments: dict[str, Any]) -> None: ...


def made(name: str, description: str = "") -> Tool:
    """A tool as a sandbox would bring it."""
    return Tool(spec=ToolSpec(name=name, description=description, parameters={"type": "object"}), run=nothing)


@tool
def refund(order: str) -> str:
    """Give the money back."""
    return f"refunded {order}"


def agent(**options: Any) -> Agent[Any]:
    return Agent("support", model="anthropic:some", **options)


# --- what it is -------------------------------------------------------------------------------------------------------


def test_an_agent_with_a_name_and_a_model_can_be_asked() -> None:
    """P1: nothing else is needed."""
    rendered = agent().render()

    assert (rendered.model_spec, rendered.instructions, rendered.tools) == ("anthropic:some", "", ())


def test_instructions_are_written_as_they_read_in_the_source() -> None:
    """P26: the indentation of the source is not part of the prompt."""
    text = """
        First.

          Second.
    """

    assert agent(instructions=text).render().instructions == "First.\n\n  Second."


def test_tools_keep_the_order_in_which_they_were_given_and_defined() -> None:
    """P26: the order is part of the request's prefix."""
    support = agent(tools=[refund, made("alpha")])

    @support.tool
    def zulu() -> None: ...

    @support.tool(name="mike")
    def other() -> None: ...

    assert [t.name for t in support.tools] == ["refund", "alpha", "zulu", "mike"]
    assert other() is None


def test_a_tool_of_the_agent_takes_the_place_of_a_sandboxs_tool_of_its_name() -> None:
    """Architecture: defaults and user tools share the slots; replacing is by name, and the order stays."""
    mine = made("bash", "mine")

    names = agent(tools=[refund, mine], sandbox=local()).render(sandbox_tools=lambda _: [made("read"), made("bash")]).tools

    assert [(t.name, t.spec.description) for t in names] == [
        ("read", ""),
        ("bash", "mine"),
        ("refund", "Give the money back."),
    ]


# --- prepare ----------------------------------------------------------------------------------------------------------


def escalating() -> Agent[Case]:
    support = Agent("support", model="anthropic:small", state=Case, instructions="Answer.", tools=[made("search")])

    @support.prepare
    def unlock(turn: Turn[Case]) -> None:
        if turn.state.escalated:
            turn.use(refund)
            turn.without("search")
            turn.instruct("Refunds are unlocked.")
            turn.model = "anthropic:large"
            turn.thinking = "high"

    return support


def test_a_prepare_function_changes_one_turn_by_what_the_state_says() -> None:
    """P26: tools, instructions and model follow the state, and nothing is left over from the turn before."""
    support = escalating()

    plain, unlocked, again = support.render({}), support.render({"escalated": b"true"}), support.render({})

    assert [t.name for t in unlocked.tools] == ["refund"]
    assert unlocked.instructions == "Answer.\n\nRefunds are unlocked."
    assert (unlocked.model, unlocked.thinking) == ("anthropic:large", "high")
    assert ([t.name for t in plain.tools], plain.instructions, plain.model) == (["search"], "Answer.", "anthropic:small")
    assert again == plain


def test_rendering_the_same_state_twice_gives_the_same_request() -> None:
    """P26: the prefix stays byte-equal until something forces it; the very same Tool objects come back."""
    support = escalating()
    one, other = support.render({"escalated": b"true"}), support.render({"escalated": b"true"})

    assert one == other
    assert all(a is b for a, b in zip(one.tools, other.tools, strict=True))


def test_a_prepare_function_cannot_change_the_state() -> None:
    """State changes only with an outcome; a change here would be lost or seen twice."""
    support = Agent("support", model="a:b", state=Case)

    @support.prepare
    def sly(turn: Turn[Case]) -> None:
        turn.state.notes.append("seen")

    with pytest.raises(UsageError, match="prepare function changed the state"):
        support.render({})


def test_instructions_may_be_a_function_of_the_turn() -> None:
    """Architecture: what is dynamic is a function in the same slot."""
    support = Agent("support", model="a:b", state=Case, instructions=lambda turn: f"\n    Notes: {turn.state.notes}")

    assert support.render({"notes": b'["x"]'}).instructions == "Notes: ['x']"


def test_a_turn_knows_its_conversation_and_its_tools() -> None:
    """P26: what a prepare function may depend on is given to it, so that it needs no globals."""
    seen: list[Any] = []
    support = agent(tools=[refund], sandbox=local())
    support.prepare(lambda turn: seen.append((turn.conversation, turn.tools)))

    support.render(conversation="issue-1", sandbox_tools=lambda _: [made("bash")])

    assert seen == [("issue-1", ("bash", "refund"))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda turn: turn.without("refnd"), "did you mean 'refund'?"),
        (lambda turn: turn.use(made("refund")), "two tools named 'refund'"),
        (lambda turn: turn.use(3), "is not a tool"),
        (lambda turn: turn.instruct("  "), "a text is needed"),
        (lambda turn: turn.state, "state=YourDataclass"),
        (lambda turn: setattr(turn, "model", "gpt"), "`provider:model`"),
        (lambda turn: setattr(turn, "thinking", "much"), "use one of off, minimal"),
        (lambda turn: 3, "returned a value"),
    ],
)
def test_a_mistake_in_a_prepare_function_is_named(change: Any, said: str) -> None:
    """F6: a failure with a name; the loop can tell the user what to mend."""
    support = agent(tools=[refund])

    @support.prepare
    def wrong(turn: Turn[None]) -> Any:
        return change(turn)

    with pytest.raises(UsageError) as raised:
        support.render()

    assert said in str(raised.value)


def test_using_a_tool_twice_is_using_it_once() -> None:
    """Two prepare functions need not know of each other."""
    support = agent()
    support.prepare(lambda turn: turn.use(refund))
    support.prepare(lambda turn: turn.use(refund, refund))

    assert [t.name for t in support.render().tools] == ["refund"]


def test_replacing_a_tool_for_a_turn_is_leaving_one_out_and_using_another() -> None:
    """The message that refuses a double name says how."""
    support = agent(tools=[made("bash")])
    mine = made("bash", "mine")

    @support.prepare
    def replace(turn: Turn[None]) -> None:
        turn.without("bash")
        turn.use(mine)

    assert support.render().tools == (mine,)


# --- hooks and decorators ---------------------------------------------------------------------------------------------


def test_every_decorator_returns_the_function_it_was_given() -> None:
    """Architecture: what stands in the file stays callable in a test."""
    support = agent()

    def hook() -> None: ...
    def prepare(turn: Turn[Any]) -> None: ...

    assert support.on_message(hook) is hook
    assert support.on_stop(hook) is hook
    assert support.on_settled(hook) is hook
    assert support.prepare(prepare) is prepare
    assert [h.name for h in (*support.message_hooks, *support.stop_hooks, *support.settled_hooks)] == ["hook"] * 3


def test_annotations_of_local_classes_resolve_in_every_decorator() -> None:
    """P7: an agent built inside a function is as good as one at module level."""

    @dataclass
    class Local:
        n: int = 0

    support = Agent("support", model="a:b", state=Local)

    @support.tool
    def take(ctx: Context[Local], given: Local) -> None: ...

    @support.on_stop
    def stop(ctx: Context[Local]) -> None: ...

    assert list(support.tools[0].spec.parameters["properties"]) == ["given"]
    assert len(support.stop_hooks) == 1


async def waits(turn: Turn[Any]) -> None: ...
def yields(turn: Turn[Any]) -> Iterator[int]:
    yield 1


async def both(turn: Turn[Any]) -> AsyncIterator[int]:
    yield 1


class Waits:
    async def __call__(self, turn: Turn[Any]) -> None: ...


@pytest.mark.parametrize("function", [waits, yields, both, Waits(), 3])
def test_a_prepare_function_that_could_wait_is_refused_at_definition(function: Any) -> None:
    """P26: it runs before every model call and any number of times, so it must be plain."""
    with pytest.raises(UsageError, match="prepare"):
        agent().prepare(function)
    with pytest.raises(UsageError, match="instructions"):
        agent(instructions=function)


# --- names and options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "support", "issue-17307", "a1-b2"])
def test_a_kebab_case_name_is_fine(name: str) -> None:
    """Names are URL segments and durable keys."""
    assert Agent(name).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Support", "'support'"),
        ("my_agent", "'my-agent'"),
        ("a b", "'a-b'"),
        ("-a", "'a'"),
        ("a--b", "'a-b'"),
        ("1a", ""),
        ("a" * 64, "at most 63"),
    ],
)
def test_another_name_is_refused_with_one_that_would_do(name: str, hint: str) -> None:
    """A name that works in Python and breaks in a URL is found at once."""
    with pytest.raises(UsageError) as raised:
        Agent(name)

    assert hint in str(raised.value)


def test_two_tools_of_one_name_are_refused_with_both_places() -> None:
    """Architecture: duplicates are refused with both paths."""
    support = agent(tools=[refund])

    with pytest.raises(UsageError) as raised:

        @support.tool(name="refund")
        def another() -> None: ...

    assert str(raised.value).count(__file__) == 3
    assert "'refund'" in str(raised.value)


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    """A misspelt option would otherwise be silently without effect."""
    with pytest.raises(UsageError, match="no option 'instruction'; did you mean 'instructions'"):
        Agent("a", instruction="x")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "claude"}, "`provider:model`"),
        ({"model": 3}, "neither"),
        ({"thinking": "lots"}, "use one of off"),
        ({"instructions": 3}, "not int"),
        ({"tools": [3]}, "is not a tool"),
        ({"state": 3}, "give the class"),
        ({"aliases": ["Old Name"]}, "'old-name'"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_written(options: dict[str, Any], said: str) -> None:
    """The place of the definition is in the message, so that a person finds the line."""
    with pytest.raises(UsageError) as raised:
        Agent("a", **options)

    assert said in str(raised.value)


def test_an_agent_without_a_model_says_so_when_it_is_asked() -> None:
    """A folder or the command line may still give it one, so the definition alone is no mistake."""
    with pytest.raises(UsageError, match="has no model"):
        Agent("a").render()


# --- copies and completion --------------------------------------------------------------------------------------------


def test_a_replaced_agent_is_a_copy_that_shares_no_tools_with_the_first() -> None:
    """`cairn run --model` must not change the agent another part of the program holds."""
    first = agent(instructions="One.", tools=[refund])

    second = first.replaced(model="openai:x", tools=[made("bash")])
    second.tool(name="late")(lambda: None)

    assert [t.name for t in first.tools] == ["refund"]
    assert [t.name for t in second.tools] == ["refund", "bash", "late"]
    assert (first.model, second.model, second.name) == ("anthropic:some", "openai:x", "support")


def test_completing_an_agent_fills_what_it_leaves_open_and_can_be_done_again() -> None:
    """A folder gives a name, instructions and tools to the Agent in its agent.py, however often it is loaded."""
    support: Agent[None] = Agent(model="a:b")
    for _ in range(2):
        support.complete(name="support", instructions="  Help.", description="Helps.", tools=[made("search")][:0])

    assert (support.name, support.instructions, support.description) == ("support", "Help.", "Helps.")


def test_completing_an_agent_with_what_it_says_otherwise_is_refused() -> None:
    """One of the two would silently have no effect."""
    with pytest.raises(UsageError, match="instructions is said twice"):
        agent(instructions="One.").complete(instructions="Two.")


def test_a_draft_belongs_to_the_agents_state() -> None:
    """Decided with the state: no state, no draft."""
    draft = escalating().draft({"escalated": b"true"}, {"escalated": 4})

    assert draft is not None
    assert draft.value.escalated is True
    assert agent().draft({}) is None
