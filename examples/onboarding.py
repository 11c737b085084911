"""A workflow that a tenant wrote: text, not code of ours. It opens an account, waits for a person, and may take days.

    python onboarding.py       run it; kill it at any moment (kill -9), run it again: no account is opened twice

Here the person is this program itself, so that it ends; over HTTP it is whoever may call `approve` of the object
`/agents/onboarding/acme`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from cairn import App
from cairn.errors import Conflict
from cairn.runtime.program import Function, FunctionCall
from cairn.runtime.program_pool import Interpreters
from cairn.runtime.workflow import workflows

DIARY = Path("onboarding.log")

#: What the tenant handed in. It is pinned by its digest when it is started.
SOURCE = """
account = await step("open the account", open_account, company=company)
await send_mail(to=contact, text="We are looking at your papers")
answer = await wait_for_approval({"company": company, "account": account})
if answer["approved"]:
    await sleep(0.2)
    await send_mail(to=contact, text=f"Welcome to account {account}")
else:
    await step("close it again", close_account, account=account)
    await send_mail(to=contact, text=f"We are sorry: {answer['reason']}")
{"account": account, "approved": answer["approved"], "by": answer["by"]}
"""


def write_down(line: str) -> None:
    with DIARY.open("a") as diary:
        diary.write(f"{line}\n")


async def open_account(call: FunctionCall) -> str:
    # `keyed`: after a crash it is called again with the same key, and a bank that knows the key opens no second account.
    write_down(f"open {call.arguments['company']} {call.key[-8:]}")
    await asyncio.sleep(0.05)
    return f"A-{call.arguments['company'].upper()}"


async def close_account(call: FunctionCall) -> None:
    write_down(f"close {call.arguments['account']}")


async def send_mail(call: FunctionCall) -> None:
    write_down(f"mail {call.arguments['text']}")
    await asyncio.sleep(0.05)


interpreters = Interpreters()

Onboarding = workflows(
    [
        Function("open_account", open_account, ("company",), "keyed", stub="async def open_account(company: str) -> str: ..."),
        Function(
            "close_account", close_account, ("account",), "keyed", stub="async def close_account(account: str) -> None: ..."
        ),
        Function("send_mail", send_mail, ("to", "text"), "never", stub="async def send_mail(to: str, text: str) -> None: ..."),
    ],
    kind="onboarding",
    interpreters=interpreters,
)


async def main() -> None:
    async with App(objects=[Onboarding], store="onboarding.db") as app:
        workflow = app.object(Onboarding, "acme")
        await workflow.call("start", SOURCE, {"company": "acme", "contact": "ann@example.com"}, "Onboarding of ACME")
        while (standing := await workflow.call("inspect"))["status"] not in ("completed", "failed", "cancelled"):
            for question in await workflow.call("questions"):
                print(f"asked: {question['question']['company']}? yes")
                try:
                    await workflow.call("approve", question["name"], question["digest"], "me")
                except Conflict:
                    pass  # it was answered a moment before
            await asyncio.sleep(0.05)
        print(standing["status"], standing["error"] or standing["result"])
    await interpreters.close()


if __name__ == "__main__":
    asyncio.run(main())
