"""The statements: all of them valid, none of them slow by shape."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from cairn.runtime.storage.connection import Parameters, SqliteConnection, configure
from cairn.runtime.storage.format import migrate
from cairn.runtime.storage.opening import MEMORY
from cairn.runtime.storage.queries import ROWS_MAX, _all, execute_rows, powers, query, repeated

NAMES = sorted(_all())


@pytest.fixture
def db() -> Iterator[SqliteConnection]:
    connection = SqliteConnection(MEMORY)
    configure(connection, memory=True)
    migrate(connection, MEMORY)
    yield connection
    connection.close()


def prepared(name: str) -> tuple[str, Parameters]:
    """The statement with nothing for its arguments."""
    sql = repeated(name, 1) if ":rows" in query(name) else query(name)
    names = re.findall(r":([a-z]+)", sql)
    assert not (names and "?" in sql), "arguments come by name or in order, not both"
    return sql, dict.fromkeys(names) if names else [None] * sql.count("?")


@pytest.mark.parametrize("name", NAMES)
def test_every_statement_fits_the_schema(name: str, db: SqliteConnection) -> None:
    """S15: a statement that names what is not there is found before it runs."""
    sql, parameters = prepared(name)
    db.execute(f"explain {sql}", parameters)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in NAMES
        if not name.startswith(("check_", "info", "data_", "last_n", "all_", "drop_workers", "workers_of"))
    ],
)
def test_no_statement_of_daily_work_reads_a_whole_table(name: str, db: SqliteConnection) -> None:
    """L1, L5: cost grows with what is asked for, not with what is stored."""
    sql, parameters = prepared(name)
    plan = [str(row[-1]) for row in db.execute(f"explain query plan {sql}", parameters)]
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step and "CONSTANT ROW" not in step]
    allowed = {
        "due_now": ["SCAN d"],
        "due_next": ["SCAN d USING INDEX due_by_time", "SCAN d USING COVERING INDEX due_by_time"],
        "unreferenced_blobs": ["SCAN b"],
        # A lineage has a row per fork, computed on the way.
        "find_lineage": ["SCAN line"],
        "find_checkpoint": ["SCAN line"],
    }
    unexpected = [scan for scan in scans if scan not in allowed.get(name, []) and "(subquery" not in scan]
    assert not unexpected, plan


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 255, 256, 257, 700, 1_000])
def test_a_count_is_a_sum_of_few_powers_of_two(count: int) -> None:
    """Few forms of a statement exist, so they stay prepared."""
    sizes = list(powers(count))
    assert sum(sizes) == count
    assert all(size & (size - 1) == 0 and size <= ROWS_MAX for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= count // ROWS_MAX + 8


@pytest.mark.parametrize("count", [1, 3, 300])
def test_rows_arrive_whatever_their_number(count: int, db: SqliteConnection) -> None:
    """S2: none is lost between two forms of a statement."""
    db.execute("pragma foreign_keys=OFF")
    execute_rows(db, "set_alarms", [(n, "a", float(n)) for n in range(count)])
    execute_rows(db, "set_alarms", [(n, "a", n + 0.5) for n in range(count)])
    assert db.execute("select n, due_at from due order by n") == [(n, n + 0.5) for n in range(count)]


def test_a_repeated_statement_keeps_what_follows_its_rows() -> None:
    """The conflict clause belongs to all rows."""
    sql = repeated("set_alarms", 2)
    assert sql.count("(?, ?, ?)") == 2 and sql.endswith("do update set due_at = excluded.due_at")
