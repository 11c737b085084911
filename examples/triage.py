"""An agent that triages a bug report where it lies: `cairn run triage.py "Login fails for addresses with a plus" --id login`.

It works in the current directory, with your files and your shell. Kill it at any moment and type the same command again.
"""

from cairn import Agent, local

triage = Agent(
    "triage",
    model="anthropic:claude-sonnet-4-6",  # or openai:…, google:…, or --model on the command line
    sandbox=local("."),
    instructions="""
        Triage a bug report: reproduce the bug, find its cause, and fix it if the fix is small.
        Run the tests before and after; never change a test to make it pass.
        End with a report of what you did and what you saw.
    """,
)
