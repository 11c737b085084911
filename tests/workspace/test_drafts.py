"""Drafts: several changes, one batch; seen by their own reads and by nobody else; refused when the files have moved on."""

from __future__ import annotations

import asyncio

import pytest
from tests.runtime.toy import run
from tests.workspace.desk import Desk, copy_of, nodes_of

from cairn.errors import Conflict, Fenced, UsageError
from cairn.runtime import records as r
from cairn.runtime import workspace_draft
from cairn.runtime.files import INLINE_BYTES_MAX
from cairn.testing import FaultyStore


def test_a_transaction_is_one_batch_and_one_record() -> None:
    """S2: however many files; what it undoes itself is not in it."""

    async def main() -> None:
        async with Desk() as desk:
            head = desk.instance.head
            async with desk.files.transaction() as draft:
                for number in range(100):
                    await draft.write(f"/d/{number}", b"x", parents=True)
                await draft.write("/d/7", b"again")
                await draft.write("/tmp", b"made and removed")
                await draft.remove("/tmp")
                assert desk.files.list() == [] and await draft.read("/d/7") == b"again"

            assert desk.instance.head == head + 1
            last = (await desk.world.records())[-1]
            assert isinstance(last, r.FilesChanged)
            assert len(last.changes) == 101 and not any(change.name == "tmp" for change in last.changes)
            assert await desk.files.read("/d/7") == b"again"

    run(main())


def test_a_draft_that_is_dropped_never_happened() -> None:
    """S2: an exception in a transaction leaves neither a record nor a file; a draft nobody appends neither."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/kept", b"1")
            head = desk.instance.head
            with pytest.raises(ZeroDivisionError):
                async with desk.files.transaction() as draft:
                    await draft.write("/big", b"z" * 100_000)
                    await draft.remove("/kept")
                    raise ZeroDivisionError
            other = desk.files.draft()
            await other.rename("/kept", "/moved")

            assert desk.instance.head == head
            assert list(await copy_of(desk.files)) == ["/kept"]
            assert not desk.files.turn.locked()

    run(main())


def test_a_draft_goes_into_a_batch_with_whatever_else_is_true_then() -> None:
    """S2: files and the outcome of the call that wrote them are one batch: both are there, or neither."""

    async def main() -> None:
        async with Desk() as desk:
            draft = desk.files.draft()
            await draft.write("/a", b"b" * 50_000)
            outcome = r.StateChanged(changes={}, scope="call_1")
            await desk.instance.append([outcome, *draft.records()], blobs=draft.blobs)

            rows = await desk.store.read(desk.instance.n, desk.instance.head - 1)
            records = r.decoder().decode(rows[0].batch.records)
            assert [type(record) for record in records] == [r.StateChanged, r.FilesChanged]
            assert await desk.files.read("/a") == b"b" * 50_000
            await desk.claim()
            assert await desk.files.read("/a") == b"b" * 50_000

    run(main())


def test_a_small_write_is_one_commit_and_no_chunk() -> None:
    """Counted: one synced commit; a file above the limit has its chunk before it."""

    async def main() -> None:
        store = FaultyStore(Desk().store_of_its_own())
        async with Desk(store) as desk:
            store.counts.calls.clear()
            before = store.counts.facts
            await desk.files.write("/small", b"x" * INLINE_BYTES_MAX)
            assert store.counts.facts == before + 1
            assert store.counts.calls["put_blob"] == 0 and store.counts.calls["append"] == 1
            await desk.files.write("/large", b"x" * (INLINE_BYTES_MAX + 1))
            assert store.counts.calls["put_blob"] == 1 and store.counts.facts == before + 2

    run(main())


def test_changes_of_others_meanwhile_are_kept_and_the_same_ones_conflict() -> None:
    """S2: a draft made over older files is carried over when what it changes is as it was, and else names the path."""

    async def main() -> None:
        async with Desk() as desk:
            files = desk.files
            await files.mkdir("/d")
            await files.write("/d/ours", b"1")
            await files.write("/d/theirs", b"1")
            draft = files.draft()
            await draft.write("/d/ours", b"2")
            await draft.write("/d/new", b"made here")
            await draft.mkdir("/d/sub")
            await draft.write("/d/sub/deep", b"in a new directory")
            await files.write("/d/theirs", b"2")
            await files.write("/d/other", b"made there")
            await draft.commit()
            assert {path: found[2] for path, found in (await copy_of(files)).items() if found[0] == "file"} == {
                "/d/ours": b"2",
                "/d/theirs": b"2",
                "/d/new": b"made here",
                "/d/other": b"made there",
                "/d/sub/deep": b"in a new directory",
            }
            assert nodes_of(await desk.folded()) == nodes_of(desk.instance.files.tree)

            for change, path in (
                (lambda draft: draft.write("/d/ours", b"3"), "/d/ours"),
                (lambda draft: draft.write("/d/brand-new", b"3"), "/d/brand-new"),
                (lambda draft: draft.remove("/d/theirs"), "/d/theirs"),
                (lambda draft: draft.chmod("/d/sub/deep", 0o600), "/d/sub/deep"),
            ):
                draft = files.draft()
                await change(draft)  # type: ignore[no-untyped-call]
                await files.write(path, b"somebody else's")
                head = desk.instance.head
                with pytest.raises(Conflict, match=path):
                    await draft.commit()
                assert desk.instance.head == head

    run(main())


def test_the_log_takes_no_change_that_does_not_follow() -> None:
    """S14: whatever a caller appends: a stale base, a name that is taken, a directory below itself, a node twice."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.mkdir("/a/b", parents=True)
            await desk.files.write("/f", b"")
            base, tree = desk.instance.files.tree.revision, desk.instance.files.tree
            a, b, f = (entry.id for entry in (desk.files.stat("/a"), desk.files.stat("/a/b"), desk.files.stat("/f")) if entry)
            change = r.Change
            wrong: list[tuple[int, list[r.Change]]] = [
                (base - 1, [change(id=f, mode=0o600)]),
                (base + 1, [change(id=f, mode=0o600)]),
                (base, [change(id=f, parent=1, name="a")]),
                (base, [change(id=a, parent=b, name="a")]),
                (base, [change(id=f, parent=999, name="f")]),
                (base, [change(id=f, parent=f, name="f")]),
                (base, [change(id=999, mode=0o600)]),
                (base, [change(id=f, kind="file", parent=1, name="g")]),
                (base, [change(id=1, gone=True)]),
                (base, [change(id=f, mode=1), change(id=f, mode=2)]),
                (base, [change(id=f, parent=1, name="..")]),
                (base, [change(id=f, parent=1, name="x/y")]),
                (base, [change(id=a, size=5, text="hello")]),
                (base, [change(id=a, gone=True), change(id=f, parent=b, name="f")]),
                (base, [change(id=tree.next, kind="file", parent=1, name="f")]),
            ]
            head = desk.instance.head
            for at, changes in wrong:
                with pytest.raises(Conflict):
                    await desk.instance.append([r.FilesChanged(at=1.0, base=at, changes=tuple(changes))])
            twice = [r.FilesChanged(at=1.0, base=base), r.FilesChanged(at=1.0, base=base + 1)]
            with pytest.raises(Conflict, match="twice"):
                await desk.instance.append(twice)
            assert desk.instance.head == head
            swap = (change(id=a, parent=1, name="f"), change(id=f, parent=1, name="a"))
            await desk.instance.append([r.FilesChanged(at=1.0, base=base, changes=swap)])
            assert [(entry.name, entry.kind) for entry in desk.files.list()] == [("a", "file"), ("f", "directory")]

    run(main())


def test_a_task_that_has_the_turn_is_told_instead_of_waiting_for_itself() -> None:
    """L2: writing through the workspace inside its own transaction would never end."""

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                with pytest.raises(UsageError, match="draft"):
                    await desk.files.write("/a", b"1")
                other = asyncio.ensure_future(desk.files.write("/b", b"2"))
                await asyncio.sleep(0)
                assert not other.done(), "another task waits"
                await draft.write("/c", b"3")
            await other
            assert [entry.name for entry in desk.files.list()] == ["b", "c"]

    run(main())


def test_writers_of_one_instance_take_turns() -> None:
    """S2: fifty tasks at once: each is one batch, none is lost."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/n", b"")
            await asyncio.gather(
                *(desk.files.append("/n", b"x") for _ in range(50)), *(desk.files.write(f"/{n}", b"") for n in range(50))
            )
            assert await desk.files.read("/n") == b"x" * 50 and len(desk.files.list()) == 51

    run(main())


def test_an_owner_that_lost_the_instance_writes_nothing() -> None:
    """S4: the files of a stale owner stay in its memory."""

    async def main() -> None:
        async with Desk() as desk:
            stale = desk.files
            await desk.claim()
            with pytest.raises(Fenced):
                await stale.write("/a", b"late")
            assert desk.files.list() == []
            await desk.files.write("/a", b"new")

    run(main())


@pytest.mark.slow
def test_more_changes_than_a_record_holds_are_staged_and_take_effect_at_once() -> None:
    """S2: 8,000 files in one transaction: batches of staged changes without effect, then one record; the log says the same."""

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                for number in range(8_000):
                    await draft.write(f"/{number % 10}/{number}", f"{number}".encode(), parents=True)
                with pytest.raises(UsageError, match="prepare"):
                    draft.records()

            records = await desk.world.records()
            assert sum(isinstance(record, r.FilesStaged) for record in records) >= 2
            assert sum(isinstance(record, r.FilesChanged) for record in records) == 1
            assert desk.files.usage().files == 8_010
            folded = await desk.folded()
            assert nodes_of(folded) == nodes_of(desk.instance.files.tree)
            await desk.claim()
            assert await desk.files.read("/7/4567") == b"4567" and await desk.files.read("/0/0") == b"0"

    run(main())


def test_what_was_staged_and_not_finished_has_no_effect_on_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: an owner that died between staging and the record; the next transaction is its own, from a checkpoint too."""
    monkeypatch.setattr(workspace_draft, "RECORD_CHANGES_BYTES", 2_000)

    async def main() -> None:
        async with Desk() as desk:
            draft = desk.files.draft()
            for number in range(100):
                await draft.write(f"/lost-{number}", b"x")
            await draft.prepare()
            await desk.instance.save_checkpoint()
            await desk.claim()
            assert desk.files.list() == []
            await desk.files.write("/small", b"x")
            assert [entry.name for entry in desk.files.list()] == ["small"]
            async with desk.files.transaction() as draft:
                for number in range(100):
                    await draft.write(f"/kept-{number}", b"x")
            assert len(desk.files.list()) == 101
            assert nodes_of(await desk.folded()) == nodes_of(desk.instance.files.tree)

    run(main())
