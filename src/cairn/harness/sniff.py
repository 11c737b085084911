"""What bytes are, by how they begin: names lie. Pure."""

from __future__ import annotations

#: What every model that sees images can be shown.
SHOWABLE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def image_type(data: bytes) -> str | None:
    """The media type of an image; None for anything else, whatever it is called."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    # "BM" alone begins many texts: the size in the header has to fit, and the reserved field to be zero.
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0" and len(data) >= 26:
        return "image/bmp"
    return None
