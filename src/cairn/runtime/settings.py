"""Every number of the runtime, with its unit and its reason. Pass another `Settings` to a worker to change one."""

from __future__ import annotations

#: Interrupted attempts in a row without a new durable fact before a fiber is a dead letter (Flue: 10).
FIBER_ATTEMPTS_MAX = 10
#: Seconds a fiber may run, parked time not counted, unless it was accepted with another limit (Flue: 1 h).
FIBER_TIMEOUT_SECONDS = 3600.0
#: The wait before the second interrupted attempt, in seconds; doubles from there.
BACKOFF_BASE_SECONDS = 1.0
#: The longest wait between attempts, in seconds: long enough to stop burning, short enough for L3.
BACKOFF_MAX_SECONDS = 60.0
#: Seconds a cancelled method is given to clean up before it is abandoned.
CANCEL_GRACE_SECONDS = 5.0

#: Seconds a worker owns its instances without a renewal: long enough for a stalled disk, short enough to wait for (L2).
LEASE_SECONDS = 15.0
#: Seconds before the end of its lease at which a worker stops: the next owner may begin at the end, and clocks drift.
LEASE_MARGIN_SECONDS = 5.0
#: Seconds after which a thread that only computes hands the interpreter over. The store's thread takes it at every statement:
#: at Python's 5 ms a busy event loop made a commit 200 times as slow.
SWITCH_SECONDS = 0.0005
#: Seconds without one turn of the event loop after which the lease is no longer renewed: the worker is stuck.
LOOP_STALL_SECONDS = 60.0
#: Seconds between two turns that the event loop is asked to show.
LOOP_TICK_SECONDS = 5.0
#: Seconds between two looks at who is alive: a killed worker's work is taken over within one (L2: 1 s).
SWEEP_SECONDS = 0.5
#: Seconds between two scans of what is due: every commit of a busy worker wakes it, and one scan serves them all.
SCAN_GAP_SECONDS = 0.01
#: Due instances looked at by one scan; the next scan starts with what this one left.
SCAN_ROWS = 200
#: Seconds between two scans when nothing says that something is due; bounds a wake-up that was lost (L1: 5 s).
POLL_SECONDS = 5.0
#: Instances active in one worker at a time (promises: 500 running within 1 GB).
INSTANCES_MAX = 500
#: Seconds an instance with nothing to do stays in memory: the next message of a conversation finds it there.
IDLE_SECONDS = 10.0
#: Seconds an instance must have had nothing to do before it is tidied up. Who follows it live has read on by then: merging rows
#: under a reader costs him a look at the whole conversation.
TIDY_SECONDS = 3.0
#: Seconds a stopping worker gives its work to end and be released (L6).
DRAIN_SECONDS = 30.0
#: Threads for functions that are not `async`: as many blocking calls as run at a time; the others queue.
THREADS_MAX = 32
#: The first and the longest wait, in seconds, before an instance that could not be activated is tried again (L7).
POISON_BACKOFF_BASE_SECONDS = 1.0
POISON_BACKOFF_MAX_SECONDS = 60.0
#: Seconds before a fiber whose method is missing is looked at again by the same process; a new process looks at once.
BLOCKED_RECHECK_SECONDS = 60.0
#: Seconds after which the lease row of a worker that nobody can prove dead is removed: far beyond any pause we know.
FORGET_WORKER_SECONDS = 3600.0
#: Seconds between two collections of content that nothing refers to any more, and how long such content is kept: what was
#: stored for an append that has not come yet is among it.
COLLECT_SECONDS = 3600.0
COLLECT_GRACE_SECONDS = 3600.0
#: Seconds an owner goes on asking a store that is busy or full to take its append, and the pause between two tries.
APPEND_RETRY_SECONDS = 60.0
APPEND_RETRY_WAIT_SECONDS = 0.5

#: Steps and waits of one fiber: all of them are in every checkpoint of its instance (Cloudflare's tasks: 10,000).
FIBER_NAMES_MAX = 10_000
#: Seconds a method that waits is given to begin its parallel branches before it is parked with all of them.
PARK_GRACE_SECONDS = 0.001
#: Seconds `on_fiber_recovered` may take; then the method is called again as if there were no such hook (Cloudflare: 10).
RECOVERY_SECONDS = 10.0
#: Seconds a question waits for its answer unless it says otherwise: a week, holidays included.
ANSWER_SECONDS = 7 * 86_400.0
#: Signals an instance keeps for whoever will wait for them; the oldest go first. They are part of every checkpoint.
SIGNALS_KEPT_MAX = 10_000
#: Settled fibers of one schedule that are remembered, and dead letters: enough to look back, small enough for the fold.
SCHEDULE_SETTLED_KEPT = 20
SCHEDULE_DEAD_KEPT = 100
#: Seconds after its time at which an occurrence counts as missed for a schedule that skips missed ones.
SCHEDULE_LATE_SECONDS = 60.0
#: The shortest interval of a schedule, in seconds: below, it is a loop, and its log would be nothing but firings.
SCHEDULE_SECONDS_MIN = 1.0

#: Seconds one handler of an object may take; the next one waits for it (Cloudflare: 30 s of CPU, Slack: 3 s in all).
HANDLER_SECONDS = 30.0
#: Seconds a caller waits for an object's answer, the handlers before its own included, unless it says otherwise.
CALL_SECONDS = 60.0
#: Chunks of a stream that its caller has not taken: then the handler waits for it.
STREAM_CHUNKS_MAX = 64
#: Frames a socket has not taken before it is closed: a state of 10 KB is 10 MB then (Cloudflare closes at 1 MiB of backlog).
ATTACHMENT_FRAMES_MAX = 1_000
#: Bytes of one value in an object's storage, and of all of them: they are in its memory and in its checkpoints (Cloudflare:
#: 2 MB a value).
STORAGE_VALUE_BYTES_MAX = 512 << 10
STORAGE_BYTES_MAX = 64 << 20
#: Tags of a connection, and characters of one (Cloudflare: 10 and 256).
CONNECTION_TAGS_MAX = 10
CONNECTION_TAG_CHARACTERS_MAX = 256
#: The shortest and the longest wait, in seconds, before a hibernating object with connections looks whether the processes that
#: have their sockets are alive: as long as the last of them has been there.
CONNECTIONS_RECHECK_SECONDS_MIN = 60.0
CONNECTIONS_RECHECK_SECONDS_MAX = 3600.0
#: Seconds an object that is to be destroyed waits in memory for its sub-objects to be; then it makes room for them.
DESTROY_WAIT_SECONDS = 5.0
#: Seconds between two looks whether an instance exists that somebody follows and nobody has made yet.
FOLLOW_POLL_SECONDS = 5.0
#: Seconds before a follower whose store failed reads on.
FOLLOW_RETRY_SECONDS = 0.5
