"""What the command line is parsed with: a parser that speaks like the rest of Cairn, and what a verb is.

Laws. The standard library's parser and nothing else. A mistake in the arguments is a UsageError like any other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cairn.errors import UsageError
from cairn.framework.cli.output import installed_version, line

Arguments = argparse.Namespace


class Parser(argparse.ArgumentParser):
    """The standard library's, but a mistake is a UsageError of one line, and a verb's typo gets a suggestion."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self._suggested(message)}. See: {self.prog} --help")

    def _suggested(self, message: str) -> str:
        # argparse has no hook for an unknown choice but its text: `argument VERB: invalid choice: 'lss' (choose from …)`
        if message.startswith("unrecognized arguments: ") and not message.partition(": ")[2].startswith("-"):
            return f"{message}; what belongs together needs quotes"
        before, found, after = message.partition("invalid choice: '")
        if not found or "VERB" not in before:
            return message
        from difflib import get_close_matches

        typed = after.partition("'")[0]
        close = get_close_matches(typed, self.get_default("verbs") or (), n=1)
        return f"no verb '{typed}'" + (f" (did you mean '{close[0]}'?)" if close else "")


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: what help says, its arguments, and what runs. A verb with `verbs` below it has neither."""

    name: str
    help: str
    declare: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    run: Callable[[Arguments], int] | None = None
    verbs: tuple[Verb, ...] = ()
    has_store: bool = True


def add(parser: argparse.ArgumentParser, verbs: tuple[Verb, ...]) -> None:
    below = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    parser.set_defaults(prog=parser.prog, verbs=[verb.name for verb in verbs])
    for verb in verbs:
        own = below.add_parser(verb.name, help=verb.help, description=_sentence(verb.help), allow_abbrev=False)
        verb.declare(own)
        if verb.verbs:
            add(own, verb.verbs)
            continue
        if verb.has_store:
            own.add_argument("--store", metavar="PATH", help="default: CAIRN_STORE, or .cairn/cairn.db")
        own.add_argument("--json", action="store_true", help="JSON on stdout, for programs")
        own.set_defaults(run=verb.run)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


class Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help, default=argparse.SUPPRESS)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        line(f"cairn {installed_version() or '(a source tree that is not installed)'}")
        parser.exit(0)


def at_least(minimum: int) -> Callable[[str], int]:
    """A whole number with a lower bound."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is below {minimum}")
        return value

    return number
