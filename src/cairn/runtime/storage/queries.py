"""The statements of queries.sql and schema.sql, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

from cairn.runtime.storage.connection import Connection

#: A multi-row statement takes rows in powers of two up to this many, so that few forms exist and stay prepared; at
#: thirteen columns it binds 3,328 values, below every build's limit (32,766).
ROWS_MAX = 256

_NAME = "-- name: "
_ROWS = ":rows "


@cache
def _all() -> dict[str, str]:
    found: dict[str, str] = {}
    for block in _text("queries.sql").split(_NAME)[1:]:
        name, _, body = block.partition("\n")
        lines = (line for line in body.splitlines() if not line.startswith("--"))
        found[name.strip()] = " ".join(" ".join(lines).split())
    return found


def query(name: str) -> str:
    """The statement of that name."""
    return _all()[name]


@cache
def repeated(name: str, count: int) -> str:
    """A multi-row statement for `count` rows: what follows `:rows` up to its closing parenthesis, that many times."""
    head, _, tail = _all()[name].partition(_ROWS)
    row, _, rest = tail.partition(")")
    return f"{head}{', '.join([row + ')'] * count)}{rest}"


def powers(count: int) -> Iterator[int]:
    """`count` as a sum of powers of two, largest first, none above ROWS_MAX."""
    size = ROWS_MAX
    while count:
        while size > count:
            size >>= 1
        yield size
        count -= size


def execute_rows(connection: Connection, name: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run a multi-row statement over all rows, in as few executions as its forms allow."""
    start = 0
    for size in powers(len(rows)):
        values = [value for row in rows[start : start + size] for value in row]
        connection.execute(repeated(name, size), values)
        start += size


def schema(format: int) -> list[str]:
    """The statements that bring an empty file, or a store of the format before, to this format."""
    name = "schema.sql" if format == 1 else f"schema-{format}.sql"
    lines = (line for line in _text(name).splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
