"""The files as of any offset: read, compared, followed, forked; kept for as long as anybody can ask for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.runtime.toy import run
from tests.workspace.desk import Desk, copy_of, nodes_of

from cairn.errors import NotFound, StoreCorrupt, WorkspaceError
from cairn.runtime import records as r
from cairn.runtime import workspace_draft
from cairn.runtime.files_changes import FileChange
from cairn.runtime.storage.store import Address, Batch, Creation
from cairn.runtime.workspace import Workspace
from cairn.runtime.workspace_history import changes_between, diff, follow_files, workspace_at
from cairn.testing import Crashed, FaultyStore, crash_points

Step = Callable[[workspace_draft.Draft], Awaitable[None]]


async def forked(desk: Desk, at: int, id: str) -> Desk:
    """A fork of the instance at an offset, with an owner of its own."""
    other = Desk(beside=desk, id=id)
    address = other.world.client.address(id)
    record = r.InstanceForked(kind="toy", id=id, uid=f"uid-{id}", source=desk.instance.uid, offset=at, at=1.0)
    creation = Creation(f"uid-{id}", f"life-{id}", Batch(r.encode([record])), 1.0)
    await desk.store.fork(desk.instance.n, at, address, creation)
    await other.claim()
    return other


async def random_change(dice: random.Random, files: Workspace, number: int) -> None:
    """Something that can be done to files as they are."""
    entries = list(files.walk())
    some = dice.choice(entries).path if entries else "/none"
    content = bytes([number % 256]) * dice.choice([0, 10, 5_000, 40_000])
    try:
        match dice.randrange(9):
            case 0 | 1 | 2:
                await files.write(f"/f{dice.randrange(6)}", content)
            case 3:
                await files.mkdir(f"/d{dice.randrange(3)}")
            case 4:
                await files.rename(some, f"/d{dice.randrange(3)}/moved{dice.randrange(4)}")
            case 5:
                await files.remove(some, recursive=True)
            case 6:
                await files.append(some, content)
            case 7:
                await files.symlink(some, f"/l{dice.randrange(3)}")
            case _:
                await files.chmod(some, dice.choice([0o600, 0o755]))
    except WorkspaceError:
        pass  # not everything fits


@pytest.mark.parametrize("seed", range(3))
def test_the_files_as_of_an_offset_are_the_copy_taken_then(seed: int) -> None:
    """S2, S3: at each of 80 offsets, with checkpoints in between, by a reader that knows nothing of the application."""

    async def main() -> None:
        dice, copies = random.Random(seed), {}
        async with Desk() as desk:
            for number in range(80):
                await random_change(dice, desk.files, number)
                copies[desk.instance.head] = await copy_of(desk.files)
                if number % 17 == 16:
                    await desk.instance.save_checkpoint()
            for offset, copy in copies.items():
                past = await workspace_at(desk.store, desk.address, offset)
                assert past.offset == offset and await copy_of(past) == copy
                assert nodes_of(await desk.folded(offset)) == nodes_of(past._nodes)  # type: ignore[arg-type]
            assert await copy_of(await workspace_at(desk.store, desk.address)) == copies[desk.instance.head]
            assert await copy_of(await workspace_at(desk.store, desk.address, 0)) == {}
            for nowhere in (-1, 1 << 40):
                with pytest.raises(NotFound):
                    await workspace_at(desk.store, desk.address, nowhere)
            with pytest.raises(NotFound):
                await workspace_at(desk.store, Address("toy", "nobody"))

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_what_changed_between_two_offsets_is_what_differs(seed: int) -> None:
    """S2: created, removed and changed paths are the difference of two copies; moved ones say where from."""

    async def main() -> None:
        dice, copies = random.Random(seed), {}
        async with Desk() as desk:
            for number in range(40):
                await random_change(dice, desk.files, number)
                copies[desk.instance.head] = await copy_of(desk.files)
            offsets = sorted(copies)
            for _ in range(60):
                before, after = sorted(dice.sample(offsets, 2))
                changes = await changes_between(desk.store, desk.address, before, after)
                assert applied(copies[before], copies[after], changes) == copies[after]

    run(main())


def applied(before: dict[str, Any], after: dict[str, Any], changes: list[FileChange]) -> dict[str, Any]:
    """The first copy with the changes done to it: what is moved takes along what was in it."""
    moved = {change.was: change.path for change in changes if change.what == "moved"}

    def where(path: str) -> str:
        """Where a path went: the longest moved part of it decides."""
        above = path
        while above:
            if above in moved:
                return moved[above] + path[len(above) :]
            above = above.rpartition("/")[0]
        return path

    gone = {change.path for change in changes if change.what == "removed"}
    found = {where(path): entry for path, entry in before.items() if path not in gone}
    for change in changes:
        if change.what in ("created", "changed") or change.what == "moved":
            assert change.path in after
            found[change.path] = after[change.path]
    return found


def test_a_difference_is_shown_as_text() -> None:
    """What a person or a model reads: new, changed, moved, removed, binary."""

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                await draft.write("/a", b"one\ntwo\n")
                await draft.write("/gone", b"bye\n")
                await draft.write("/d/moved", b"same\n", parents=True)
                await draft.write("/bin", b"\0")
            before = desk.instance.head
            async with desk.files.transaction() as draft:
                await draft.write("/a", b"one\nTWO\n")
                await draft.remove("/gone")
                await draft.rename("/d/moved", "/d/there")
                await draft.write("/bin", b"\1")
                await draft.write("/new", b"hi")
                await draft.rename("/d", "/e")
            assert await diff(desk.store, desk.address, before) == (
                "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n one\n-two\n+TWO\n"
                "Files a/bin and b/bin differ (1 and 1 bytes)\n"
                "rename from /d/moved\nrename to /e/there\n"
                "--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n"
                "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+hi\n\\ No newline at end of file\n"
            )
            assert await diff(desk.store, desk.address, before, before) == ""

    run(main())


def test_changes_are_told_as_they_happen_and_from_any_offset_on() -> None:
    """S3: to whoever follows, in log order, once; one who comes later sees the same."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/before", b"")
            start = desk.instance.head
            stream = follow_files(desk.store, desk.address, start)
            following = asyncio.ensure_future(anext(stream))
            async with desk.files.transaction() as draft:
                await draft.mkdir("/d")
                await draft.write("/d/f", b"1")
            await desk.files.rename("/d", "/e")
            await desk.files.write("/e/f", b"2")
            await desk.files.remove("/e", recursive=True)

            told = [await following]
            while len(told) < 6:
                told.append(await anext(stream))
            await stream.aclose()
            assert [(change.what, change.path, change.was, change.ordinal - start) for change in told] == [
                ("created", "/d", "", 1),
                ("created", "/d/f", "", 1),
                ("moved", "/e", "/d", 2),
                ("changed", "/e/f", "", 3),
                ("removed", "/e", "", 4),
                ("removed", "/e/f", "", 4),
            ]
            again = follow_files(desk.store, desk.address, start)
            assert [await anext(again) for _ in range(6)] == told
            await again.aclose()

    run(main())


def test_a_fork_has_the_files_as_they_were_and_goes_its_own_way() -> None:
    """S12: nothing is copied; what either does later the other never sees; the source can be deleted; tenants apart."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/shared", b"s" * 100_000)
            await desk.files.write("/small", b"small")
            at = desk.instance.head
            await desk.files.write("/small", b"later")
            await desk.files.write("/late", b"l" * 100_000)
            size = (await desk.store.info()).bytes
            fork = await forked(desk, at, "b")

            assert (await desk.store.info()).bytes - size < 20_000
            assert await copy_of(fork.files) == {
                "/shared": ("file", 0o644, b"s" * 100_000),
                "/small": ("file", 0o644, b"small"),
            }
            await fork.files.write("/small", b"mine")
            await fork.files.rename("/shared", "/moved")
            assert await desk.files.read("/small") == b"later" and desk.files.exists("/shared")
            second = await forked(fork, fork.instance.head, "c")

            await desk.store.delete(desk.instance.n)
            await desk.store.collect_blobs(-1.0)
            for each in (fork, second):
                await each.claim()
                assert await each.files.read("/moved") == b"s" * 100_000 and await each.files.read("/small") == b"mine"
            past = await workspace_at(desk.store, fork.address, at)
            assert await past.read("/small") == b"small"
            assert await desk.store.check() == []

    run(main())


def test_a_fork_in_the_middle_of_a_staged_change_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: what is staged at its offset belongs to a transaction that is not in the fork."""
    monkeypatch.setattr(workspace_draft, "RECORD_CHANGES_BYTES", 2_000)

    async def main() -> None:
        async with Desk() as desk:
            async with desk.files.transaction() as draft:
                for number in range(100):
                    await draft.write(f"/{number}", b"x")
            fork = await forked(desk, desk.instance.head - 1, "b")
            assert fork.files.list() == []
            await fork.files.write("/own", b"1")
            assert nodes_of(await fork.folded()) == nodes_of(fork.instance.files.tree)

    run(main())


def test_collection_takes_what_nobody_can_read_and_nothing_else() -> None:
    """S1: content replaced or removed is kept for reads as of then; a dropped draft's, and a deleted instance's, goes."""

    async def main() -> None:
        async with Desk() as desk:
            offsets = []
            for number in range(5):
                await desk.files.write("/big", bytes([number]) * 50_000)
                offsets.append(desk.instance.head)
            past = await workspace_at(desk.store, desk.address, offsets[0])
            first = past._nodes.node(past.stat("/big").id)  # type: ignore[union-attr]
            await desk.files.remove("/big")
            dropped = desk.files.draft()
            await dropped.write("/never", b"n" * 50_000)
            assert await desk.store.collect_blobs(-1.0) == 1, "the dropped draft's"
            for number, offset in enumerate(offsets):
                assert await (await workspace_at(desk.store, desk.address, offset)).read("/big") == bytes([number]) * 50_000
            [hash] = first.content.chunks  # type: ignore[union-attr]
            assert await desk.store.get_blob("default", hash) == b"\0" * 50_000
            await desk.store.delete(desk.instance.n)
            await desk.store.collect_blobs(-1.0)
            with pytest.raises(NotFound):
                await desk.store.get_blob("default", hash)

    run(main())


def test_a_draft_whose_content_was_collected_is_refused_and_not_half_there() -> None:
    """S14: a draft kept for longer than the grace of content nobody refers to."""

    async def main() -> None:
        async with Desk() as desk:
            draft = desk.files.draft()
            await draft.write("/a", b"a" * 50_000)
            await desk.store.collect_blobs(-1.0)
            with pytest.raises(NotFound):
                await draft.commit()
            assert desk.files.list() == []

    run(main())


def test_tenants_share_nothing() -> None:
    """X11: equal content of two tenants is stored twice, and the hash of one names nothing for the other."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/a", b"secret" * 10_000)
            [hash] = desk.files._nodes.node(desk.files.stat("/a").id).content.chunks  # type: ignore[union-attr]
            with pytest.raises(NotFound):
                await desk.store.get_blob("other", hash)
            other = desk.store
            assert await other.put_blob("other", b"secret" * 10_000) == hash
            await desk.store.delete(desk.instance.n)
            await desk.store.collect_blobs(-1.0)
            with pytest.raises(NotFound):
                await desk.store.get_blob("other", hash)  # nobody referred to theirs; ours did not keep it

    run(main())


def test_an_unreadable_record_stops_the_files_and_not_only_the_fold() -> None:
    """S14: a viewer passes over records of others, never over broken ones of files."""

    async def main() -> None:
        async with Desk() as desk:
            await desk.files.write("/a", b"1")
            rows = await desk.store.read(desk.instance.n, desk.instance.head - 1)
            assert b"files.changed" in rows[0].batch.records
            from cairn.runtime import files_log

            for broken in (b'[{"type":"files.changed","at":"x"}]', b'[{"type":"files.changed"'):
                row = type(rows[0])(rows[0].ordinal, rows[0].prev, 1, Batch(broken))
                with pytest.raises(StoreCorrupt):
                    files_log.records_of(row)
            other = type(rows[0])(rows[0].ordinal, rows[0].prev, 1, Batch(b'[{"type":"from.the.future","x":1}]'))
            assert files_log.records_of(other) == []

    run(main())


# --- crashes --------------------------------------------------------------------------------------------------------


async def import_many(draft: workspace_draft.Draft) -> None:
    for number in range(60):
        await draft.write(f"/p/{number}", bytes([number]) * 900, parents=True)


async def edit(draft: workspace_draft.Draft) -> None:
    await draft.write("/p/1", b"edited")
    await draft.append("/p/2", b"more")
    await draft.write("/big", b"b" * 40_000)
    await draft.symlink("p/1", "/l")


async def move(draft: workspace_draft.Draft) -> None:
    await draft.rename("/p", "/q")
    await draft.remove("/q/3")
    await draft.write("/q/new", b"n" * 30_000)


async def replace(draft: workspace_draft.Draft) -> None:
    await draft.remove("/q", recursive=True)
    await draft.write("/q", b"a file now")
    await draft.append("/big", b"c" * 40_000)


STEPS: list[Step] = [import_many, edit, move, replace]


@pytest.mark.slow
def test_a_crash_anywhere_leaves_each_transaction_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2, T3: before and after every write of four transactions, staged ones, packed ones and ones with chunks among them:
    the next owner finds the files after one transaction or the one before, does the rest, and ends as if nothing had been."""
    monkeypatch.setattr(workspace_draft, "RECORD_CHANGES_BYTES", 700)
    monkeypatch.setattr(workspace_draft, "RECORD_CONTENT_BYTES", 5_000)

    async def expected() -> list[dict[str, Any]]:
        async with Desk() as desk:
            copies = [await copy_of(desk.files)]
            for step in STEPS:
                async with desk.files.transaction() as draft:
                    await step(draft)
                copies.append(await copy_of(desk.files))
            return copies

    async def crashed(crash: Any, copies: list[dict[str, Any]]) -> int:
        async with Desk() as desk:
            faulty = FaultyStore(desk.store, crash=crash)
            desk.instance.store = faulty
            desk.files._contents._store = faulty
            done = 0
            try:
                for step in STEPS:
                    async with desk.files.transaction() as draft:
                        await step(draft)
                    done += 1
            except Crashed:
                pass
            await desk.claim()
            after = await copy_of(desk.files)
            assert after in copies[done : done + 2], f"{crash}: half of transaction {done}"
            for step in STEPS[copies.index(after) :]:
                async with desk.files.transaction() as draft:
                    await step(draft)
            assert await copy_of(desk.files) == copies[-1]
            assert nodes_of(await desk.folded()) == nodes_of(desk.instance.files.tree)
            assert await desk.store.check() == []
            return faulty.writes

    copies = asyncio.run(expected())
    points = 0
    for crash in crash_points():
        asyncio.run(crashed(crash, copies))
        points += 1
    assert points > 30
