"""`cairn`: the verbs and their options. Parsing only; the work of a verb is in the file of its name.

Law: nothing is imported here but the parser. A verb's file, and what it needs, is imported when the verb runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cairn.framework.cli.output import guard

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", envvar="CAIRN_STORE", help="The store. Default: .cairn/cairn.db", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]

SETTINGS = {"rich_markup_mode": None, "no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}

app = typer.Typer(name="cairn", help="AI agents that survive production.", **SETTINGS)  # type: ignore[arg-type]
store_app = typer.Typer(help="Check or copy a store.", **SETTINGS)  # type: ignore[arg-type]
app.add_typer(store_app, name="store")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (`Exit`). Never raises, unless CAIRN_DEBUG=1 asks it to."""
    given = None if arguments is None else list(arguments)
    return guard(lambda: app(args=given, prog_name="cairn", standalone_mode=False))


def _version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        typer.echo(f"cairn {version('cairn-agents')}")
        raise typer.Exit


@app.callback()
def _cairn(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("ls")
def _ls(
    kind: Annotated[str | None, typer.Argument(help="Only instances of this kind.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many instances to show.")] = 100,
    after: Annotated[int, typer.Option(min=0, help="Continue a listing after this number.")] = 0,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """List instances: what they wait for, who runs them, and what nobody serves."""
    from cairn.framework.cli import ls

    return ls.run(store, kind=kind, limit=limit, after=after, json=json)


@app.command("log")
def _log(
    address: Annotated[str, typer.Argument(metavar="KIND/ID", help="The instance.")],
    after: Annotated[int, typer.Option(min=-1, help="Only what follows this ordinal.")] = -1,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows; Ctrl-C ends it.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show long values whole.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Show an instance's log as a timeline. With --json: one object per record."""
    from cairn.framework.cli import log

    return log.run(store, address, after=after, follow=follow, full=full, json=json)


@store_app.command("check")
def _store_check(store: StoreOption = None, json: JsonOption = False) -> int:
    """Verify every page, checksum and link of the store. Exit code 1 when something is wrong."""
    from cairn.framework.cli import store as verbs

    return verbs.check(store, json=json)


@store_app.command("backup")
def _store_backup(
    path: Annotated[Path, typer.Argument(help="Where the copy goes; it must not exist.")],
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Copy the store, consistently, while agents go on running in it."""
    from cairn.framework.cli import store as verbs

    return verbs.backup(store, path, json=json)


@app.command("doctor")
def _doctor(store: StoreOption = None, json: JsonOption = False) -> int:
    """Show what this machine offers, what is missing, and what to do about it."""
    from cairn.framework.cli import doctor

    return doctor.run(store, json=json)
