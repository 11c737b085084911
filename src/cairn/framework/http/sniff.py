"""What an attachment is, by its first bytes. Pure."""

from __future__ import annotations


def image_type(data: bytes) -> str | None:
    """The media type of an image that models can be shown; None for anything else, whatever it is called."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None
