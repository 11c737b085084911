"""`cairn token`: who may call a server with `--auth tokens`: make, list and revoke bearer tokens in its store.

Laws. A token is shown once, on stdout, alone, so that it can be piped to where it belongs. A list shows everything else.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cairn.errors import NotFound, UsageError
from cairn.framework.cli.output import Exit, columns, duration, json_line, line, moment
from cairn.framework.cli.store import existing, named, opened

#: How long a token lasts when nobody says otherwise: a season, so that none is forgotten for ever.
DEFAULT_EXPIRY = "90d"

UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
HEADING = ("NAME", "TENANT", "GRANTS", "AGENTS", "EXPIRES", "TRUSTED")


def create(
    store: str | None,
    name: str,
    *,
    grants: Sequence[str],
    agents: Sequence[str],
    expires: str,
    tenant: str,
    trusted: bool,
    json: bool,
) -> int:
    """`cairn token create`: the token on stdout, once."""
    from cairn.clock import SystemClock
    from cairn.framework.http import tokens
    from cairn.framework.http.auth import Grant

    known = {grant.value: grant for grant in Grant}
    wrong = [grant for grant in grants if grant not in known]
    if wrong:
        raise UsageError(f"grant {wrong[0]!r} is none of {', '.join(known)}")
    lasts = seconds(expires)
    path = named(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()

    async def work() -> str:
        async with opened(path) as it:
            return await tokens.create(
                it,
                clock,
                name,
                [known[grant] for grant in grants],
                agents=agents,
                tenant=tenant,
                expires_in=lasts,
                trusted=trusted,
            )

    token = asyncio.run(work())
    if json:
        until = None if lasts is None else clock.wall() + lasts
        json_line({"name": name, "tenant": tenant, "token": token, "grants": list(grants), "expires_at": until})
    else:
        line(token)
        until_text = "never expires" if lasts is None else f"expires in {expires}"
        sys.stderr.write(f"cairn: token '{name}' ({', '.join(grants)} on {', '.join(agents)}) {until_text}; ")
        sys.stderr.write("it is shown only now. Send it as `Authorization: Bearer …`\n")
    return Exit.OK


def ls(store: str | None, *, json: bool) -> int:
    """`cairn token ls`: every token there is, without itself."""
    path = existing(store)

    async def work() -> int:
        from cairn.clock import SystemClock

        async with opened(path) as it:
            rows = await it.tokens()
        now = SystemClock().wall()
        if json:
            for row in rows:
                json_line(
                    {
                        "name": row.name,
                        "tenant": row.tenant,
                        "grants": list(row.grants),
                        "agents": list(row.agents),
                        "trusted": row.trusted,
                        "created_at": row.created_at,
                        "expires_at": row.expires_at,
                    }
                )
            return Exit.OK
        if not rows:
            line(f"no tokens in {path}; make one: cairn token create NAME --grant read,send,abort")
            return Exit.OK
        table = [
            (
                row.name,
                row.tenant,
                ",".join(row.grants),
                ",".join(row.agents),
                _expiry(row.expires_at, now),
                "yes" if row.trusted else "",
            )
            for row in rows
        ]
        for each in columns(table, HEADING):
            line(each)
        return Exit.OK

    return asyncio.run(work())


def revoke(store: str | None, name: str, *, tenant: str, json: bool) -> int:
    """`cairn token revoke`: it no longer works, in running servers within seconds."""
    path: Path = existing(store)

    async def work() -> bool:
        async with opened(path) as it:
            return await it.delete_token(name, tenant)

    if not asyncio.run(work()):
        raise NotFound(f"there is no token '{name}' of tenant '{tenant}' in {path}; see: cairn token ls")
    if json:
        json_line({"name": name, "tenant": tenant, "revoked": True})
    else:
        line(f"token '{name}' is revoked; running servers stop taking it within 5 s")
    return Exit.OK


def seconds(text: str) -> float | None:
    """`30d`, `12h`, `2w`, `1y`; None for `never`. Raises UsageError."""
    if text == "never":
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdwy])", text)
    if found is None or not int(found[1]):
        raise UsageError(f"'{text}' is no time to last: write 12h, 30d, 2w, 1y, or never")
    return float(int(found[1]) * UNITS[found[2]])


def _expiry(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    return f"{moment(at)[:16]} ({duration(at - now)} left)" if at > now else f"{moment(at)[:16]} (expired)"
