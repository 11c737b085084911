"""The sentences that keep what callers and clients of objects rely on, and what each becomes when it is broken. See run.py."""

from __future__ import annotations

from tests.mutations.run import Mutation

RUNTIME = "src/cairn/runtime"
ACTIVATION = f"{RUNTIME}/activation.py"
ATTACHMENT = f"{RUNTIME}/attachment.py"
CALLS = f"{RUNTIME}/calls.py"
CHAIN = f"{RUNTIME}/chain.py"
CONNECTION_STATE = f"{RUNTIME}/connection_state.py"
DESTROYING = f"{RUNTIME}/destroying.py"
DRAFT = f"{RUNTIME}/draft.py"
FOLLOWING = f"{RUNTIME}/following.py"
HANDLERS = f"{RUNTIME}/handlers.py"
OBJECTS = f"{RUNTIME}/objects.py"
OBJECT_STATE = f"{RUNTIME}/object_state.py"
RUNNER = f"{RUNTIME}/runner.py"
WORKER = f"{RUNTIME}/worker.py"

HANDLED = "tests/objects/test_object_handlers.py"
REACHED = "tests/objects/test_object_reaching.py"
CONNECTED = "tests/objects/test_object_connections.py"
BELOW = "tests/objects/test_sub_objects.py"
CRASHED = "tests/objects/test_object_crash.py::test_a_crash_at_any_durable_write_changes_nothing_that_callers_see"

MUTATIONS = [
    # --- one handler at a time, one commit each
    Mutation(
        name="handlers take turns",
        promise="S11",
        file=HANDLERS,
        old="                async with self._turn:\n",
        new="                if True:\n",
        tests=(f"{HANDLED}::test_handlers_run_one_after_the_other_in_the_order_they_came",),
    ),
    Mutation(
        name="a transaction takes the turn",
        promise="S11",
        file=f"{RUNTIME}/durable.py",
        old="            async with self._instance.handlers.turn():\n",
        new="            async with self._instance.handlers.turn(beside=True):\n",
        tests=(f"{HANDLED}::test_a_transaction_takes_the_handlers_turn",),
    ),
    Mutation(
        name="a draft is closed when its handler ends",
        promise="S10",
        file=DRAFT,
        old="        self.is_open = False\n",
        new="        pass\n",
        tests=(f"{HANDLED}::test_what_a_handler_left_behind_can_change_nothing",),
    ),
    Mutation(
        name="a call settles in the batch of its changes",
        promise="S7",
        file=CALLS,
        old="        settle=settled,\n",
        new="        settle=lambda result: (),\n",
        tests=(f"{CRASHED}[calls]",),
    ),
    Mutation(
        name="a chunk is in the batch of what it tells of",
        promise="S10",
        file=ACTIVATION,
        old="            await self.commit(draft, tell(raw) if tell is not None else ())\n",
        new="            await self.instance.append(tell(raw)) if tell is not None else None\n",
        tests=(f"{REACHED}::test_a_forwarded_stream_comes_chunk_by_chunk_and_ends",),
    ),
    Mutation(
        name="a read_only method changes no state",
        promise="S10",
        file=DRAFT,
        old="            if self.read_only:\n",
        new="            if False:\n",
        tests=(f"{HANDLED}::test_a_read_only_method_cannot_change_anything",),
    ),
    Mutation(
        name="a reader is never behind an answer",
        promise="S10",
        file=ACTIVATION,
        old="                await self.instance.caught_up()\n",
        new="                pass\n",
        tests=(f"{REACHED}::test_a_key_makes_a_call_one_call",),
    ),
    Mutation(
        name="a deadline cuts",
        promise="L3",
        file=HANDLERS,
        old="await asyncio.wait({task}, timeout=seconds)",
        new="await asyncio.wait({task}, timeout=None)",
        tests=(f"{HANDLED}::test_a_handler_that_takes_too_long_is_cut_off_and_the_next_one_runs",),
    ),
    Mutation(
        name="what cannot be read back is refused",
        promise="S14",
        file=OBJECT_STATE,
        old="        if changed:\n            try:",
        new="        if False:\n            try:",
        tests=(f"{HANDLED}::test_a_state_that_could_not_be_read_back_is_refused",),
    ),
    # --- reaching
    Mutation(
        name="a chain is not entered twice",
        promise="L7",
        file=CHAIN,
        old="    if str(address) in waiting:\n",
        new="    if False:\n",
        tests=(f"{HANDLED}::test_a_chain_that_comes_back_is_refused_by_name",),
    ),
    Mutation(
        name="the chain travels",
        promise="L7",
        file=ACTIVATION,
        old="result = await self._limited(run, draft, call.chain, seconds, invocation.method)",
        new="result = await self._limited(run, draft, (), seconds, invocation.method)",
        tests=(f"{REACHED}::test_a_chain_over_two_processes_is_refused_by_name",),
    ),
    Mutation(
        name="another live process keeps its objects",
        promise="S4",
        file=WORKER,
        old="if not self._may_claim() or (row.owner != self.id and row.owner in self._census.live):",
        new="if not self._may_claim():",
        tests=(f"{REACHED}::test_a_call_from_another_process_is_a_request_in_the_log",),
    ),
    Mutation(
        name="an instance that leaves takes no calls",
        promise="L6",
        file=HANDLERS,
        old="        if self._is_closed:\n            raise Leaving",
        new="        if False:\n            raise Leaving",
        tests=(f"{HANDLED}::test_a_call_whose_process_stops_is_told_that_nothing_of_it_was_committed",),
    ),
    Mutation(
        name="a stream that yielded is not begun again",
        promise="S9",
        file=CALLS,
        old="    elif state.chunks:\n",
        new="    elif False:\n",
        tests=(f"{REACHED}::test_a_stream_that_was_interrupted_says_so_and_is_not_begun_again",),
    ),
    Mutation(
        name="a call that kills is counted",
        promise="L3",
        file=CALLS,
        old="            await instance.append([started], durability=Durability.DELTA)\n",
        new="            _ = started, Durability\n",
        tests=(f"{REACHED}::test_a_call_that_kills_every_process_is_given_up",),
    ),
    Mutation(
        name="an abort does not queue",
        promise="L7",
        file=CALLS,
        old="        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)",
        new="        await asyncio.wait({work})",
        tests=(f"{REACHED}::test_a_call_that_waits_can_be_aborted_without_waiting",),
    ),
    # --- connections
    Mutation(
        name="a client is not told of what it set",
        promise="S3",
        file=ATTACHMENT,
        old="            if connection.protocol and record.source != connection.id:\n",
        new="            if connection.protocol:\n",
        tests=(f"{CONNECTED}::test_the_state_follows_to_every_client_but_the_one_that_set_it",),
    ),
    Mutation(
        name="a readonly client sets no state by a method",
        promise="X5",
        file=DRAFT,
        old="            self._refuse_readonly()\n",
        new="",
        tests=(f"{CONNECTED}::test_a_readonly_client_sets_no_state_by_no_way",),
    ),
    Mutation(
        name="the end of an old opening is no news of the new one",
        promise="S7",
        file=CONNECTION_STATE,
        old="    if known is not None and known.token == record.token:\n        del state",
        new="    if known is not None:\n        del state",
        tests=(f"{CONNECTED}::test_a_forgotten_client_is_no_longer_in_a_fork_or_a_checkpoint",),
    ),
    Mutation(
        name="a frame without a record keeps its place",
        promise="S3",
        file=FOLLOWING,
        old="        while self._pending and self._pending[0][0] <= self._fold.head:\n",
        new="        while self._pending:\n",
        tests=(f"{CONNECTED}::test_a_frame_without_a_record_waits_for_the_rows_before_it",),
    ),
    Mutation(
        name="what is kept for one socket is bounded",
        promise="X3",
        file=ATTACHMENT,
        old="        if len(self._queue) >= ATTACHMENT_FRAMES_MAX and not isinstance(frame, Closed):\n",
        new="        if False:\n",
        tests=(f"{CONNECTED}::test_a_reader_that_is_too_slow_is_closed_and_the_others_are_not",),
    ),
    Mutation(
        name="a hibernating object looks after its clients",
        promise="L2",
        file=RUNNER,
        old="occurs), self._recheck(now))",
        new="occurs), None)",
        tests=(f"{CONNECTED}::test_connections_of_a_dead_process_are_closed_by_the_owner",),
    ),
    # --- the end
    Mutation(
        name="a sub-object is in its parent's log before it exists",
        promise="S1",
        file=OBJECTS,
        old="        if born is not None:\n            await born()\n",
        new="        if born is not None:\n            pass\n",
        tests=(f"{BELOW}::test_a_parent_knows_of_it_before_it_exists",),
    ),
    Mutation(
        name="sub-objects go first",
        promise="S7",
        file=DESTROYING,
        old="    if not await _end_all(instance, instance.runtime.subs.values()):\n        return False\n",
        new="",
        tests=(f"{BELOW}::test_destroying_a_parent_destroys_everything_below_it",),
    ),
    Mutation(
        name="destroying waits for nothing that runs",
        promise="L7",
        file=RUNNER,
        old="        await self.instance.handlers.cut(gone=True)\n",
        new="",
        tests=(f"{BELOW}::test_destroying_waits_for_nothing_that_runs",),
    ),
    Mutation(
        name="nobody but the parent makes a sub-object",
        promise="X5",
        file=OBJECTS,
        old="        elif parent is not None and isinstance(self.applications.get(parent.kind), Handling):\n",
        new="        elif False:\n",
        tests=(f"{BELOW}::test_nobody_but_the_parent_makes_a_sub_object",),
    ),
    Mutation(
        name="whoever comes next finishes a destruction",
        promise="S7",
        file=RUNNER,
        old="            if self.instance.runtime.destroy:\n                return _End.DESTROYED\n",
        new="",
        tests=(f"{BELOW}::test_a_fiber_destroys_its_object", f"{CRASHED}[destroys]"),
    ),
]
