"""Frames over the worker's one socket: two lengths, a JSON header, and bytes that belong to it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

#: Lengths of the header and of the payload.
LENGTHS = struct.Struct("!II")


class Gone(Exception):
    """The host has closed its end, or died."""


class Wire:
    """The host, seen from the worker. `ask` is one question at a time; `tell` may come between."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._asking = threading.Lock()
        self._sending = threading.Lock()

    def tell(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Send one frame."""
        data = json.dumps(header, separators=(",", ":")).encode()
        with self._sending:
            self._send(LENGTHS.pack(len(data), len(payload)) + data)
            if payload:
                self._send(payload)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Gone from error

    def take(self) -> tuple[dict[str, Any], bytes]:
        """The next frame from the host."""
        header, payload = LENGTHS.unpack(self._exactly(LENGTHS.size))
        found: dict[str, Any] = json.loads(self._exactly(header))
        return found, self._exactly(payload)

    def ask(self, header: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send a question and wait for its answer. From any thread."""
        with self._asking:
            self.tell(header, payload)
            return self.take()

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._socket.recv(min(size - len(parts), 1 << 20))
            except OSError as error:
                raise Gone from error
            if not part:
                raise Gone
            parts += part
        return bytes(parts)
