"""Every number of the HTTP server, with its unit and its reason. `App(limits=HttpLimits(…))` changes some.

Laws. A limit that is not here does not exist: no other file of this package holds a number of its own. What is exceeded is
refused with a status that says which: 400 408 413 415 416 429 431 503 507. Nothing a client does is unbounded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from cairn.errors import UsageError

KB = 1024
MB = 1024 * KB
GB = 1024 * MB

#: What is handed to a connection at once. A client that takes nothing holds two of these, however much is meant for it.
WRITE_BYTES = 64 * KB


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpLimits:
    """What one server process accepts. The defaults are for one machine on the open internet behind a proxy."""

    # --- a connection -----------------------------------------------------------------------------------------------

    connections_max: int = 5_000
    """Open connections per process; one more is answered 503 and closed. An idle one costs about 20 KB."""
    connection_files_reserve: int = 200
    """Open files kept back from connections: the store, providers, sandboxes, temporary files. With fewer files than
    `connections_max` needs, fewer connections are accepted."""
    idle_seconds: float = 60.0
    """A connection without a request is closed after this (nginx: 75 s, AWS load balancers: 60 s)."""
    write_stall_seconds: float = 60.0
    """A peer that takes no byte of what waits for it is dropped after this (nginx `send_timeout`: 60 s)."""
    kernel_bytes: int = 256 * KB
    """What the kernel holds for a client that takes nothing, beside the 64 KB of ours; it would grow to megabytes. At a
    round trip of 100 ms this still is 2.5 MB a second."""
    backlog: int = 2_048
    """Connections the kernel holds for us before they are accepted."""

    # --- the head of a request --------------------------------------------------------------------------------------

    header_seconds: float = 10.0
    """From the first byte, or from the connection, to the end of the headers. Slow-loris (Apache: 20 s, hypercorn: 5 s)."""
    header_bytes: int = 16 * KB
    """Request line and headers together; 431 above (Node: 16 KB, nginx: 32 KB in 4 pieces)."""
    headers_max: int = 100
    """Header fields of one request; 431 above (Apache: 100)."""
    query_parameters_max: int = 100
    """Parameters of one query; 400 above."""

    # --- the body of a request --------------------------------------------------------------------------------------

    send_body_bytes: int = 16 * MB
    """A message with its attachments, base64 inside of JSON."""
    other_body_bytes: int = 1 * MB
    """Any other body (nginx: 1 MB)."""
    body_seconds: float = 30.0
    """From the headers to the last byte of the body."""
    body_memory_bytes: int = 64 * KB
    """What a body that is arriving holds in memory; more of it is in a temporary file."""
    large_body_bytes: int = 1 * MB
    """Above this a body is large, and needs one of the few places there are."""
    large_bodies_max: int = 8
    """Large bodies at a time; one more is 429. Eight of 16 MB, decoded, are what a small machine can hold."""
    json_depth_max: int = 200
    """Nesting of a JSON body; deeper is 400. The decoder's own stack ends somewhere above 1,000."""
    json_parts_max: int = 100_000
    """Lists and objects in a JSON body; more is 400. 16 MB of empty lists would be 360 MB decoded."""
    attachment_bytes: int = 10 * MB
    """All attachments of one message, decoded."""

    # --- who asks ---------------------------------------------------------------------------------------------------

    requests_per_second: float = 100.0
    """Per token, on average; a burst of as many at once. Above: 429. Trusted tokens have no such limit."""
    readers_per_token: int = 20
    """Live streams of one token at a time (a browser's six per tab, a few tabs). Trusted tokens have no such limit."""
    quotas_max: int = 10_000
    """Tokens whose use is remembered; the longest unused is forgotten first, when its bucket is full again."""
    failures_burst: int = 20
    """Wrong credentials of one address before it has to wait."""
    failures_per_minute: float = 10.0
    """How many more of them it may try from then on."""
    all_failures_burst: int = 500
    """Wrong credentials of all addresses together before every unknown credential has to wait."""
    all_failures_per_minute: float = 300.0
    """How many more from then on. A credential that was accepted before is not held up."""
    addresses_max: int = 10_000
    """Addresses whose failures are remembered; IPv6 counts by /64, which is what one customer has."""
    identity_seconds: float = 2.0
    """How long a verified token is trusted without asking the store: a revoked one works no longer than this."""
    identity_recheck_seconds: float = 3.0
    """How often a live stream asks whether its credential still holds (a revoked one ends within 5 s)."""

    # --- what waits -------------------------------------------------------------------------------------------------

    queued_submissions_max: int = 1_000
    """Unsettled submissions of one instance; 429 above."""
    log_bytes_max: int = 10 * GB
    """The log of one instance, without what a fork shares; one that has as much takes no more messages: 507."""
    page_batches: int = 100
    """Batches in one answer or frame of updates."""
    page_bytes: int = 1 * MB
    """About how much one answer or frame of updates holds; at least one batch. A slow client keeps one in memory."""
    conversations_page_max: int = 1_000
    """Conversations in one page of a list."""
    title_reads_max: int = 8
    """Titles of a list that are read at a time: a first message may have megabytes."""

    # --- what is remembered of conversations ------------------------------------------------------------------------

    fold_rows: int = 1_000
    """Batches that are folded for a history before other requests get a turn."""
    snapshot_bytes: int = 64 * MB
    """Conversations kept folded for the next reader; the longest unread is forgotten first."""
    titles_max: int = 10_000
    """Conversations whose title is remembered, some hundred bytes each."""
    frames_max: int = 4_096
    """Encoded ranges kept for other readers of the same conversation …"""
    frames_bytes: int = 32 * MB
    """… and what they may weigh together."""
    transcripts_bytes: int = 16 * MB
    """Transcripts kept encoded for other tabs of the same chat."""

    # --- live readers -----------------------------------------------------------------------------------------------

    long_poll_seconds: float = 30.0
    """How long a long-poll waits (the published clients expect an answer within 60 s)."""
    control_seconds: float = 30.0
    """Between two control frames of a stream; the published clients call it dead after 90 s without one."""
    heartbeat_seconds: float = 15.0
    """Between two comments of a quiet stream: proxies drop what says nothing for 30 s."""

    # --- WebSockets -------------------------------------------------------------------------------------------------

    message_bytes: int = 16 * MB
    """One message of a WebSocket, in as many frames as it likes; 1009 above. As much as a POST may have: a chat client sends
    the whole transcript. Above `large_body_bytes` it needs one of the few places there are (1013)."""
    calls_per_socket_max: int = 64
    """Messages of one socket that are worked on at a time; the next one is read when there is room."""
    socket_stall_seconds: float = 10.0
    """One message to a client that does not take it waits this long; then the socket is closed, 1013."""
    ping_seconds: float = 20.0
    """Between two pings of a socket; and how long the answer may take (the published client sends none itself)."""
    connection_id_characters_max: int = 128
    """What a client may call its connection (`_pk`; the published client sends a UUID)."""

    # --- the end ----------------------------------------------------------------------------------------------------

    drain_seconds: float = 10.0
    """What requests in flight get to end in, once the server stops. Live readers are let go at once: they come back."""

    def __post_init__(self) -> None:
        wrong = [field.name for field in fields(self) if not getattr(self, field.name) > 0]
        if wrong:
            raise UsageError(f"HttpLimits: {', '.join(wrong)} must be above 0; a limit cannot be switched off, only raised")
