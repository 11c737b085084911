"""The chat page: one document for every address under it, and its scripts and styles, as they were built.

Laws. Only the built files that were found at start are ever sent: a request names a key of a dictionary, never a path. The page
loads nothing from anywhere else and runs nothing but its own script: what a model wrote may end up in it. Nothing here knows
agents or conversations; the page asks for them like any client.
"""

from __future__ import annotations

import html
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from cairn.errors import UsageError
from cairn.framework.http import problems
from cairn.framework.http.responses import Send, send_bytes, send_empty

#: Where `npm run build` in console/ puts the files, and where the wheel carries them.
BUILT = Path(__file__).parent.parent / "console"

#: The word that stands for the mount in the built document; console/vite.config.ts writes it.
MOUNT = "/__CAIRN_MOUNT__"

#: `img-src blob:` is for attachments that were fetched with a token, `data:` for pictures that are about to be sent.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)

GUARDS: Mapping[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # A browser looks up the hosts of links before anybody follows them: a name is enough to carry something out.
    "x-dns-prefetch-control": "off",
}

#: Asset names contain a digest of their content; the document that names them is asked for each time.
FOREVER = "public, max-age=31536000, immutable"
EACH_TIME = "no-cache"


@dataclass(frozen=True, slots=True)
class PageFile:
    body: bytes
    type: str
    caching: str


async def send_page(segments: Sequence[str], send: Send, *, root_path: str = "", method: str = "GET") -> None:
    """The page, or one of its assets, is sent. `segments` is the decoded path below the mount, `root_path` the decoded mount.

    Raises Problem: 404 for what is not part of the page, 405 for anything but GET and HEAD.
    """
    if method not in ("GET", "HEAD"):
        raise problems.method_not_allowed(method, "GET, HEAD")
    file = page_file(segments, root_path)
    if file is None:
        raise problems.route_not_found("/" + "/".join(segments))
    headers = {**GUARDS, "cache-control": file.caching}
    if method == "HEAD":
        await send_empty(send, 200, {"content-type": file.type, "content-length": str(len(file.body)), **headers})
    else:
        await send_bytes(send, 200, file.body, file.type, headers)


def page_file(segments: Sequence[str], root_path: str = "") -> PageFile | None:
    """What is at this path below the mount, or None."""
    if not segments or list(segments) == [""] or segments[0] == "chat":
        return PageFile(_document(root_path), "text/html; charset=utf-8", EACH_TIME)
    if len(segments) == 2 and segments[0] == "assets":
        return _built().get(f"assets/{segments[1]}")
    return None


def _document(root_path: str) -> bytes:
    # One slash, not two: `//name/assets/…` would be another host's.
    mount = quote(root_path.strip("/"))
    mount = f"/{mount}" if mount else ""
    return _built()["index.html"].body.replace(MOUNT.encode(), html.escape(mount).encode())


@cache
def _built() -> Mapping[str, PageFile]:
    """Every file of the page, by its path below `BUILT`. Read once: the files of an installation do not change under it."""
    document = BUILT / "index.html"
    if not document.is_file():
        raise UsageError(f"the chat page is not built: {document} is absent; run `npm ci && npm run build` in console/")
    files = {"index.html": PageFile(document.read_bytes(), "text/html; charset=utf-8", EACH_TIME)}
    for path in sorted((BUILT / "assets").iterdir()):
        files[f"assets/{path.name}"] = PageFile(path.read_bytes(), _type(path), FOREVER)
    return files


def _type(path: Path) -> str:
    # The machine's own table may call a script text/plain, which a browser told not to guess refuses to run.
    known = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
    return known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
