"""A data analyst in code mode: one program instead of twenty tool calls, an approval before anything leaves the house.

    python analyst.py          run it; kill it at any moment (kill -9), run it again: it goes on from the call it was at

The model here is scripted, so that it runs without a key: it looks for functions, makes a mistake with a type, mends it, and
writes one program with twenty calls, five of them in parallel. Give the agent `model="anthropic:…"` and it writes its own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from cairn import Agent, App
from cairn.testing.scripted import Call, ScriptedModel, by_turn

DIARY = Path("analyst.log")

SALES = {f"shop-{n}": [round(100 + 7.5 * n * (month % 5 + 1), 2) for month in range(12)] for n in range(1, 16)}

MISTAKEN = 'await read_sales(shop=7, month="all")'

PROGRAM = """
import asyncio

shops = await list_shops()
async def total(shop):
    rows = await read_sales(shop=shop)
    return {"shop": shop, "total": round(sum(rows), 2), "best": rows.index(max(rows)) + 1}

totals = [await total(shop) for shop in shops[:10]]                       # one after the other …
totals += await asyncio.gather(*[total(shop) for shop in shops[10:15]])   # … and five at once
totals.sort(key=lambda each: each["total"], reverse=True)
for each in totals[:3]:
    await note(text=f"{each['shop']}: {each['total']}")
print(f"{len(totals)} shops read")
sent = await send_report(to="board@example.com", text=f"Best shop: {totals[0]['shop']}")
{"best": totals[0], "sum": round(sum(each["total"] for each in totals), 2), "sent": sent}
"""

analyst = Agent(
    "analyst",
    model=ScriptedModel(
        by_turn(
            [
                Call("search_functions", {"query": "sales of a shop"}),
                Call("describe_functions", {"names": ["list_shops", "read_sales", "note", "send_report"]}),
                Call("run_program", {"code": MISTAKEN}),
                Call("run_program", {"code": PROGRAM}),
                "The best shop is shop-15.",
            ]
        )
    ),
    instructions="Answer questions about sales.",
    codemode=True,
)


def write_down(line: str) -> None:
    with DIARY.open("a") as diary:
        diary.write(f"{line}\n")


@analyst.tool(repeat="safe")
async def list_shops() -> list[str]:
    """The shops there are."""
    await asyncio.sleep(0.02)
    return list(SALES)


@analyst.tool(repeat="safe")
async def read_sales(shop: str) -> list[float]:
    """What a shop sold, by month.

    Args:
        shop: The shop's name.
    """
    await asyncio.sleep(0.02)
    write_down(f"read {shop}")
    return SALES[shop]


@analyst.tool
async def note(text: str) -> str:
    """Write a line into the report."""
    write_down(f"note {text}")
    await asyncio.sleep(0.02)
    return "noted"


@analyst.tool(approval=lambda arguments: f"a mail to {arguments['to']}")
async def send_report(to: str, text: str) -> str:
    """Mail the report."""
    write_down(f"mail {to}: {text}")
    return f"sent to {to}"


async def main() -> None:
    async with App([analyst], store="analyst.db") as app:
        conversation = app.conversation(analyst, "sales")
        receipt = await conversation.send("Which shop sold most?", key="question-1")
        reply = asyncio.ensure_future(receipt.reply())
        while not reply.done():
            for question in await conversation.questions():
                print(f"asked: may I call {question.tool} ({question.reason})? yes")
                await conversation.approve(question.call, digest=question.digest, by="me")
            await asyncio.wait({reply}, timeout=0.05)
        print(reply.result().text)


if __name__ == "__main__":
    asyncio.run(main())
