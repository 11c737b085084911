"""What a store keeps beside logs: snapshots for readers, tokens for those who come in; and lists from the newest down."""

from dataclasses import replace

from cairn.errors import Conflict
from cairn.runtime.storage.store import TokenRow
from cairn.testing.contract.case import Scene, born, collector, refused
from cairn.testing.contract.forking import forked, long

CASES, case = collector()

TOKEN = TokenRow("h1", "ci", "default", ("read", "send"), ("support/*", "shop/one"), False, 5.0, 99.5)


@case()
async def a_snapshot_is_read_as_saved(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    assert await s.store.snapshot(n, 1) is None
    state = bytes(range(256)) * 4_000
    await s.store.save_snapshot(n, 5, 1, state)
    assert await s.store.snapshot(n, 1) == (5, state)
    assert await s.store.snapshot(n, 2) is None
    assert await s.store.snapshot(999, 1) is None


@case()
async def the_newest_snapshot_wins(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    await s.store.save_snapshot(n, 5, 1, b"five")
    await s.store.save_snapshot(n, 3, 1, b"three")
    assert await s.store.snapshot(n, 1) == (5, b"five")
    await s.store.save_snapshot(n, 5, 1, b"five again")
    await s.store.save_snapshot(n, 8, 1, b"eight")
    assert await s.store.snapshot(n, 1) == (8, b"eight")


@case()
async def another_versions_snapshot_takes_the_place(s: Scene) -> None:
    """S15."""
    n = await long(s.store)
    await s.store.save_snapshot(n, 5, 1, b"old")
    await s.store.save_snapshot(n, 3, 2, b"new")
    assert await s.store.snapshot(n, 1) is None
    assert await s.store.snapshot(n, 2) == (3, b"new")


@case()
async def a_snapshot_beyond_the_log_is_not_saved(s: Scene) -> None:
    """S2."""
    n = await long(s.store, 2)
    await s.store.save_snapshot(n, 50, 1, b"early")
    await s.store.save_snapshot(999, 0, 1, b"nobody's")
    assert await s.store.snapshot(n, 1) is None


@case()
async def a_fork_has_no_snapshot_at_first(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    await s.store.save_snapshot(n, 3, 1, b"the source's")
    done = await forked(s.store, n, 5)
    assert await s.store.snapshot(done.n, 1) is None
    await s.store.save_snapshot(done.n, 3, 1, b"of a shared row")
    assert await s.store.snapshot(done.n, 1) is None
    await s.store.save_snapshot(done.n, done.ordinal, 1, b"its own")
    assert await s.store.snapshot(done.n, 1) == (done.ordinal, b"its own")
    assert await s.store.snapshot(n, 1) == (3, b"the source's")


@case()
async def a_token_is_read_as_stored(s: Scene) -> None:
    """S12."""
    forever = replace(TOKEN, hash="h2", name="app", grants=(), agents=(), trusted=True, expires_at=None)
    await s.store.put_token(TOKEN)
    await s.store.put_token(forever)
    assert await s.store.token("h1") == TOKEN
    assert await s.store.token("h2") == forever
    assert await s.store.token("h3") is None
    assert await s.store.token("H1") is None


@case()
async def a_tenant_has_one_token_of_a_name(s: Scene) -> None:
    """S12."""
    await s.store.put_token(TOKEN)
    await refused(s.store.put_token(replace(TOKEN, hash="h2")), Conflict)
    await refused(s.store.put_token(replace(TOKEN, name="other")), Conflict)
    await s.store.put_token(replace(TOKEN, hash="h2", tenant="other"))
    assert await s.store.token("h1") == TOKEN
    assert len(await s.store.tokens()) == 2


@case()
async def tokens_are_listed_by_tenant_and_name(s: Scene) -> None:
    """S12."""
    for i, (tenant, name) in enumerate((("b", "x"), ("a", "z"), ("a", "y"))):
        await s.store.put_token(replace(TOKEN, hash=f"h{i}", tenant=tenant, name=name))
    assert [(t.tenant, t.name) for t in await s.store.tokens()] == [("a", "y"), ("a", "z"), ("b", "x")]
    assert [t.name for t in await s.store.tokens("a")] == ["y", "z"]
    assert await s.store.tokens("c") == []


@case()
async def a_deleted_token_is_unknown(s: Scene) -> None:
    """S12."""
    await s.store.put_token(TOKEN)
    assert await s.store.delete_token("ci", "other") is False
    assert await s.store.token("h1") == TOKEN
    assert [await s.store.delete_token("ci"), await s.store.delete_token("ci")] == [True, False]
    assert await s.store.token("h1") is None
    await s.store.put_token(replace(TOKEN, hash="h9"))


@case(survives=True)
async def a_token_is_kept(s: Scene) -> None:
    """S1."""
    await s.store.put_token(TOKEN)
    store = await s.reopened()
    assert await store.token("h1") == TOKEN


@case(shared=True)
async def a_token_is_known_to_another_store_at_once(s: Scene) -> None:
    """L5."""
    other = await s.another()
    await s.store.put_token(TOKEN)
    assert await other.token("h1") == TOKEN
    assert await other.delete_token("ci")
    assert await s.store.token("h1") is None


@case()
async def instances_come_newest_first_in_pages(s: Scene) -> None:
    """L7."""
    ns = [(await born(s.store, f"i{i}", kind="ab"[i % 2])).n for i in range(7)]
    seen: list[int] = []
    while page := await s.store.instances(newest_first=True, before=seen[-1] if seen else None, limit=3):
        assert len(page) <= 3
        seen += [row.n for row in page]
    assert seen == ns[::-1]
    assert [row.n for row in await s.store.instances(newest_first=True, kind="b")] == ns[1::2][::-1]
    assert [row.n for row in await s.store.instances(newest_first=True, tenant="other")] == []
    assert [row.n for row in await s.store.instances(newest_first=True, kind="b", tenant="default")] == ns[1::2][::-1]
    assert [
        row.n for row in await s.store.instances(newest_first=True, kind="b", tenant="default", before=ns[5], after=ns[1])
    ] == [ns[3]]
    assert await s.store.instances(newest_first=True, kind="b", tenant="other") == []


@case()
async def a_dump_is_what_was_kept_last_under_its_name(s: Scene) -> None:
    """S12, as a cache: replaced, dropped, apart from others of the instance and of other instances."""
    n = await long(s.store)
    assert await s.store.dump(n, "one") is None
    state = bytes(range(256)) * 1_000
    await s.store.save_dump(n, "one", b"first")
    await s.store.save_dump(n, "one", state)
    await s.store.save_dump(n, "two", b"other")
    assert await s.store.dump(n, "one") == state
    await s.store.save_dump(n, "one", None)
    await s.store.save_dump(n, "never there", None)
    assert await s.store.dump(n, "one") is None
    assert await s.store.dump(n, "two") == b"other"
    await s.store.save_dump(999, "one", b"of nobody")
    assert await s.store.dump(999, "one") is None


@case()
async def a_dump_goes_with_its_instance_and_not_with_a_fork(s: Scene) -> None:
    """S12: what an interpreter held is nobody else's."""
    n = await long(s.store)
    await s.store.save_dump(n, "one", b"state")
    fork = await forked(s.store, n, 5)
    assert await s.store.dump(fork.n, "one") is None
    await s.store.delete(n)
    assert await s.store.dump(n, "one") is None
    await s.store.save_dump(n, "one", b"late")
    assert await s.store.dump(n, "one") is None
