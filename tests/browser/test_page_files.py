"""What `page.py` sends: which paths, with which headers, under which mount. In process, without a browser."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from cairn.framework.http.page import BUILT, page_file, send_page
from cairn.framework.http.problems import Problem

SCRIPT = next(path.name for path in (BUILT / "assets").iterdir() if path.suffix == ".js")


def sent(segments: list[str], **options: Any) -> tuple[int, dict[str, str], bytes]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(send_page(segments, send, **options))
    start, *rest = messages
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, b"".join(message.get("body", b"") for message in rest)


@pytest.mark.parametrize("segments", [[], [""], ["chat"], ["chat", "assistant"], ["chat", "assistant", "a/b"]])
def test_every_address_of_the_page_is_the_same_document(segments: list[str]) -> None:
    """It is asked for each time, so that a new version is seen at once."""
    status, headers, body = sent(segments)

    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert b'<div id="root">' in body
    assert b"__CAIRN_MOUNT__" not in body


def test_assets_are_kept_for_ever() -> None:
    """Their names contain their digest."""
    status, headers, body = sent(["assets", SCRIPT])

    assert status == 200
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["content-length"] == str(len(body))


def test_head_has_the_headers_alone() -> None:
    _, of_get, body = sent(["chat"])
    _, of_head, nothing = sent(["chat"], method="HEAD")

    assert of_head == of_get
    assert body
    assert nothing == b""


@pytest.mark.parametrize(
    "segments",
    [
        ["assets"],
        ["assets", ""],
        ["assets", ".."],
        ["assets", "../index.html"],
        ["assets", "../../http/page.py"],
        ["assets", "/etc/passwd"],
        ["assets", SCRIPT, "x"],
        ["assets", f"{SCRIPT}\0"],
        ["assets", SCRIPT.upper()],
        ["build.json"],
        ["LICENSES.txt"],
        ["index.html"],
        ["agents"],
    ],
)
def test_nothing_else_is_sent(segments: list[str]) -> None:
    """X1: an asset is a key of what was built; a path leads nowhere."""
    with pytest.raises(Problem) as refused:
        sent(segments)

    assert refused.value.status == 404


def test_the_page_is_only_read() -> None:
    with pytest.raises(Problem) as refused:
        sent(["chat"], method="POST")

    assert refused.value.status == 405
    assert refused.value.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("segments", [["chat"], ["assets", SCRIPT]])
def test_the_guards_are_on_all_of_it(segments: list[str]) -> None:
    """X6: no foreign script, style, image, frame, base or form; no guessing of types; no referrer; no look-ups of hosts."""
    _, headers, _ = sent(segments)
    policy = dict(line.split(" ", 1) for line in headers["content-security-policy"].split("; "))

    assert policy == {
        "default-src": "'self'",
        "img-src": "'self' data: blob:",
        "style-src": "'self'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "object-src": "'none'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-dns-prefetch-control"] == "off"


@pytest.mark.parametrize(
    ("root_path", "mount"),
    [
        ("", ""),
        ("/", ""),
        ("/ai", "/ai"),
        ("/ai/", "/ai"),
        ("/deep/er", "/deep/er"),
        ("//evil.example", "/evil.example"),
        ("/a b", "/a%20b"),
        ("/ä", "/%C3%A4"),
        ('/"><script>alert(1)</script>', "/%22%3E%3Cscript%3Ealert%281%29%3C/script%3E"),
        ("/a'&b", "/a%27%26b"),
    ],
)
def test_the_document_knows_its_mount(root_path: str, mount: str) -> None:
    """Every address in it begins with the mount, spelled so that it can be nothing but a path of this host."""
    file = page_file(["chat"], root_path)
    assert file is not None
    text = file.body.decode()

    assert f'name="cairn-mount" content="{mount}"' in text
    addresses = re.findall(r'(?:src|href)="([^"]*/assets/[^"]*)"', text)
    assert len(addresses) == 2
    assert all(address.startswith(f"{mount}/assets/") for address in addresses)


def test_no_script_or_style_stands_in_the_document_itself() -> None:
    """The policy would refuse it."""
    file = page_file([])
    assert file is not None

    assert not re.search(rb"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", file.body)
