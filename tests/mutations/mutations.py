"""The sentences that keep the promises, and what each becomes when it is broken. See run.py.

Each names the fastest test that must notice. `old` is copied from the code letter by letter; when the code moves, the
runner says so and the mutation is written again.
"""

from __future__ import annotations

from tests.mutations.run import Mutation

PLAN = "src/cairn/runtime/storage/plan.py"
PRODUCER = "src/cairn/runtime/producer.py"
COMMIT = "src/cairn/runtime/storage/commit.py"
READS = "src/cairn/runtime/storage/reads.py"
QUERIES = "src/cairn/runtime/storage/queries.sql"
OPENING = "src/cairn/runtime/storage/opening.py"
LEASE = "src/cairn/runtime/storage/lease.py"
SQLITE = "src/cairn/runtime/storage/sqlite.py"
DELETING = "src/cairn/runtime/storage/deleting.py"
FORKING = "src/cairn/runtime/storage/forking.py"
MERGING = "src/cairn/runtime/storage/merging.py"
METHOD = "src/cairn/runtime/method.py"
STEP = "src/cairn/runtime/step.py"
OWNERS = "src/cairn/runtime/owners.py"
WORKER = "src/cairn/runtime/worker.py"

CANARIES = "tests/mutations/test_canaries.py"
EFFECTS = "tests/mutations/test_effect_canaries.py"

THREADS = "tests/runtime/storage/test_threads.py"
LEASES = "tests/runtime/test_lease.py"
WORKERS = "tests/runtime/test_worker.py"
DELETED = "tests/runtime/storage/test_deleting.py"
FORMATS = "tests/runtime/storage/test_format.py"
LOGS = "tests/runtime/test_whole_logs.py"
FORKS = "tests/http/test_fork.py"
MERGES = "tests/harness/test_merging.py"
DAMAGED = "tests/runtime/storage/test_corruption.py::test_a_damaged_log_is_refused_by_name"

KEPT = "tests/runtime/test_waits.py::test_a_signal_that_was_kept_is_given_to_one"

#: Five storms of the simulator: workers that freeze for longer than their lease and come back.
STORMS = "tests/simulation/test_ownership.py::test_a_few_storms_break_nothing"


def memory(case: str) -> tuple[str]:
    """A case of the store contract, in memory."""
    return (f"tests/contract/test_sqlite.py::test_in_memory[{case}]",)


def file(case: str) -> tuple[str]:
    """A case of the store contract, on a file."""
    return (f"tests/contract/test_sqlite.py::test_in_a_file_with_threads[{case}]",)


def power_cut(scenario: str) -> tuple[str]:
    """One life of a store, its disk cut at every operation."""
    return (f"tests/crash/test_power_cut.py::test_a_power_cut_loses_no_fact_and_tears_nothing[{scenario}]",)


MUTATIONS = [
    # --- one writer
    Mutation(
        name="an owner's append is fenced",
        promise="S4",
        file=PLAN,
        old="if write.epoch is not None and write.epoch != life.epoch:",
        new="if False:",
        tests=(STORMS, *memory("an_owner_of_an_older_epoch_is_fenced")),
    ),
    Mutation(
        name="a claim is for the epoch it saw",
        promise="S4",
        file=PLAN,
        old="if life is None or life.epoch != write.expected_epoch:",
        new="if life is None:",
        tests=(STORMS, *memory("a_claim_from_another_epoch_gets_nothing")),
    ),
    Mutation(
        name="a release is fenced",
        promise="S4",
        file=PLAN,
        old="if life is None or life.epoch != write.epoch:",
        new="if life is None:",
        tests=memory("a_fenced_release_changes_nothing"),
    ),
    Mutation(
        name="a checkpoint is fenced",
        promise="S4",
        file=QUERIES,
        old="where n = :n and epoch = :epoch and deleted_at is null",
        new="where n = :n and deleted_at is null",
        tests=memory("a_fenced_checkpoint_is_not_saved"),
    ),
    Mutation(
        name="a lease is renewed only for the living",
        promise="L2",
        file=LEASE,
        old="return self.alive()",
        new="return True",
        tests=memory("a_stalled_workers_lease_is_not_renewed"),
    ),
    # --- no duplicates
    Mutation(
        name="a producer's write is remembered",
        promise="S5",
        file=PLAN,
        old="            self.remember_write(life, write.producer, write.batch, done)",
        new="            pass",
        tests=(STORMS, *memory("a_repeated_write_answers_the_first_ordinal")),
    ),
    Mutation(
        name="a producer's write has one content",
        promise="S5",
        file=PRODUCER,
        old="return Verdict.DUPLICATE if known == content else Verdict.CONFLICT",
        new="return Verdict.DUPLICATE",
        tests=memory("other_content_under_one_write_is_a_conflict"),
    ),
    Mutation(
        name="an admission key is remembered",
        promise="S6",
        file=PLAN,
        old="        first = self.known.admissions.get((life.n, admission.key))\n        if first is not None and",
        new="        first = None\n        if first is not None and",
        tests=(STORMS, *memory("a_request_with_a_known_key_answers_the_first_place")),
    ),
    Mutation(
        name="an admission key has one body",
        promise="S6",
        file=PLAN,
        old="if first is not None and first.digest != admission.digest:",
        new="if False:",
        tests=memory("a_known_key_with_another_body_is_a_conflict"),
    ),
    # --- what is on the disk
    Mutation(
        name="another boot goes on above what is reserved",
        promise="S3",
        file=PLAN,
        old="ordinal = prev + 1 if life.same_boot else max(life.reserved, prev) + 1",
        new="ordinal = prev + 1",
        tests=file("another_boot_goes_on_above_everything_reserved"),
    ),
    Mutation(
        name="a fact is synced",
        promise="S1",
        file=COMMIT,
        old='"pragma synchronous=FULL" if synced else "pragma synchronous=NORMAL"',
        new='"pragma synchronous=NORMAL"',
        tests=power_cut("facts_and_deltas"),
    ),
    Mutation(
        name="a block is reserved by a synced commit",
        promise="S3",
        file=PLAN,
        old="            life.moved = True\n            self.plan.synced = True\n        life.same_boot = True",
        new="            life.moved = True\n        life.same_boot = True",
        tests=(f"{CANARIES}::test_no_ordinal_is_given_twice_when_the_power_is_cut_beyond_a_reserved_block",),
    ),
    Mutation(
        name="a row's checksum is verified",
        promise="S14",
        file=READS,
        old="if checksum(owner, ordinal, prev, epoch, records, chunks, projection, merged_from) != stored:",
        new="if False:",
        tests=(DAMAGED,),
    ),
    Mutation(
        name="a row's link is verified",
        promise="S2",
        file=READS,
        old="            if prev != self._last:\n",
        new="            if False:\n",
        tests=(DAMAGED,),
    ),
    Mutation(
        name="a lost end is noticed",
        promise="S2",
        file=READS,
        old="if not self.is_full and self._last < head:",
        new="if False:",
        tests=(DAMAGED,),
    ),
    Mutation(
        name="a new file's name is synced",
        promise="S1",
        file=OPENING,
        old="        sync_directory(directory)",
        new="        pass",
        tests=power_cut("creating_a_store"),
    ),
    Mutation(
        name="processes write in turns",
        promise="L7",
        file="src/cairn/runtime/storage/turn.py",
        old="        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        new="        pass",
        tests=(f"{THREADS}::test_a_turn_that_is_kept_is_an_error_inline_too",),
    ),
    Mutation(
        name="a write that fails does so alone",
        promise="L7",
        file=COMMIT,
        old="if error.code in (CONSTRAINT, TOOBIG) and len(writes) > 1:",
        new="if False:",
        tests=file("a_claim_that_is_refused_does_not_harm_its_neighbours"),
    ),
    # --- nothing is forgotten
    Mutation(
        name="an owner sleeps over no request",
        promise="L1",
        file=PLAN,
        old="if write.expected_head is not None and write.expected_head != life.head:",
        new="if False:",
        tests=(f"{CANARIES}::test_an_owner_does_not_go_to_sleep_over_a_request_it_has_not_seen",),
    ),
    # --- whole logs
    Mutation(
        name="a deleted instance takes no writes",
        promise="S4",
        file=QUERIES,
        old="epoch, owner, bytes from instances where n = ? and deleted_at is null",
        new="epoch, owner, bytes from instances where n = ?",
        tests=memory("a_deleted_source_stays_for_its_fork_only"),
    ),
    Mutation(
        name="a deleted instance is not read",
        promise="S12",
        file=QUERIES,
        old="(select head from instances where n = :n and deleted_at is null)",
        new="(select head from instances where n = :n)",
        tests=memory("a_deleted_source_stays_for_its_fork_only"),
    ),
    Mutation(
        name="what a fork shares is not purged",
        promise="S3",
        file=DELETING,
        old="floor = shared if shared is not None else",
        new="floor =",
        tests=memory("a_deleted_source_stays_for_its_fork_only"),
    ),
    Mutation(
        name="a purge is finished by the next opening",
        promise="S12",
        file=SQLITE,
        old="        if not is_purged:",
        new="        if False:",
        tests=(f"{DELETED}::test_a_deletion_that_was_cut_short_is_finished_by_the_next_opening",),
    ),
    Mutation(
        name="freed pages are overwritten",
        promise="S12",
        file="src/cairn/runtime/storage/connection.py",
        old='"pragma secure_delete=ON"',
        new='"pragma secure_delete=FAST"',
        tests=(f"{DELETED}::test_what_was_deleted_is_not_in_the_files_any_more",),
    ),
    Mutation(
        name="a deletion is synced",
        promise="S1",
        file=SQLITE,
        old="deleting.delete(db, n, now), synced=True",
        new="deleting.delete(db, n, now), synced=False",
        tests=power_cut("deletions"),
    ),
    Mutation(
        name="a fork is synced",
        promise="S1",
        file=SQLITE,
        old="address, creation, boot), synced=True",
        new="address, creation, boot), synced=False",
        tests=power_cut("forks"),
    ),
    Mutation(
        name="a fork stays with its tenant",
        promise="S12",
        file=FORKING,
        old="if found.address.tenant != address.tenant:",
        new="if False:",
        tests=memory("a_fork_stays_with_its_tenant"),
    ),
    Mutation(
        name="a fork keeps the content it shares",
        promise="S1",
        file=FORKING,
        old='    connection.execute(query("fork_references"), {"n": n, "source": source, "offset": place.ordinal})',
        new="    pass",
        tests=memory("a_fork_keeps_the_content_its_beginning_refers_to"),
    ),
    Mutation(
        name="epochs go on in a fork",
        promise="S4",
        file=FORKING,
        old='    [(epoch,)] = connection.execute(query("find_row_epoch"), place)',
        new="    epoch = 0",
        tests=memory("a_fork_has_no_owner_and_its_sources_owner_cannot_write_to_it"),
    ),
    Mutation(
        name="rows between which a fork parts are not merged",
        promise="S3",
        file=MERGING,
        old='return int(size) if connection.execute(query("merge_forks"), around) == [(0,)] else None',
        new="return int(size)",
        tests=memory("a_range_in_which_a_fork_parts_is_not_merged"),
    ),
    Mutation(
        name="merged rows are not merged again",
        promise="S3",
        file=MERGING,
        old="or (lowest, highest) != (first, last) or merged:",
        new="or (lowest, highest) != (first, last):",
        tests=memory("what_overlaps_a_merged_range_is_not_merged"),
    ),
    Mutation(
        name="what is written is weighed",
        promise="L7",
        file=PLAN,
        old="        life.bytes += len(batch.records) + len(batch.chunks)\n",
        new="",
        tests=memory("a_log_weighs_its_records_and_its_chunks"),
    ),
    Mutation(
        name="a merged row is weighed",
        promise="L7",
        file=MERGING,
        old="(len(batch.records) + len(batch.chunks) - size, n)",
        new="(0, n)",
        tests=memory("a_merge_takes_off_what_it_saves"),
    ),
    Mutation(
        name="what is purged weighs nothing",
        promise="L7",
        file=DELETING,
        old="(end, size, n)",
        new="(end, 0, n)",
        tests=memory("a_deleted_source_weighs_what_forks_share"),
    ),
    Mutation(
        name="an older store is weighed when it is migrated",
        promise="S15",
        file="src/cairn/runtime/storage/schema-2.sql",
        old="sum(length(records) + length(chunks))",
        new="sum(0)",
        tests=("tests/golden/test_store.py::test_a_golden_store_reads_as_it_was_written",),
    ),
    Mutation(
        name="folds inside a merged range are dropped",
        promise="S3",
        file=MERGING,
        old='    connection.execute(query("merge_checkpoints"), around)',
        new="    pass",
        tests=memory("folds_inside_a_merged_range_are_dropped"),
    ),
    Mutation(
        name="a fold inside a merged range is made anew",
        promise="S3",
        file="src/cairn/runtime/fold.py",
        old="if row.merged_from is not None and row.merged_from <= self.head < row.ordinal:",
        new="if False:",
        tests=(f"{LOGS}::test_a_fold_catches_up_over_rows_that_were_merged_wherever_it_stands",),
    ),
    Mutation(
        name="an older store in use is not migrated",
        promise="S15",
        file=OPENING,
        old="                users.require_alone(path)",
        new="                pass",
        tests=(f"{FORMATS}::test_an_older_store_is_not_migrated_under_a_process_that_has_it_open",),
    ),
    # --- effects
    Mutation(
        name="a step's intent comes before the step",
        promise="S8",
        file=STEP,
        old="    await _announce(fiber, step, known)\n",
        new="",
        tests=(f"{EFFECTS}::test_whatever_the_moment_of_death_no_effect_is_repeated_that_may_not_be",),
    ),
    Mutation(
        name="a step that began is not begun again",
        promise="S9",
        file=STEP,
        old='if step.repeat == "never" and known.started_epoch is not None:',
        new="if False:",
        tests=(f"{EFFECTS}::test_whatever_the_moment_of_death_no_effect_is_repeated_that_may_not_be",),
    ),
    Mutation(
        name="a step that is known is not run again",
        promise="S9",
        file=STEP,
        old="if known is not None and known.done:",
        new="if False:",
        tests=(f"{EFFECTS}::test_what_a_record_answers_is_not_done_again",),
    ),
    Mutation(
        name="attempts are counted",
        promise="L3",
        file=METHOD,
        old="if state.interrupted >= FIBER_ATTEMPTS_MAX:",
        new="if False:",
        tests=(f"{EFFECTS}::test_a_fiber_that_kills_its_process_is_given_up_after_ten_attempts",),
    ),
    # --- waits and schedules
    Mutation(
        name="a signal that was taken is gone",
        promise="S6",
        file="src/cairn/runtime/waits.py",
        old="                del state.signals[place]\n",
        new="",
        tests=(KEPT,),
    ),
    Mutation(
        name="an answer fits the question",
        promise="S12",
        file="src/cairn/runtime/waits.py",
        old="    if wait.digest != digest:",
        new="    if False:",
        tests=("tests/runtime/test_waits.py::test_an_answer_that_does_not_fit_is_refused",),
    ),
    Mutation(
        name="a fiber is parked when nothing of it runs",
        promise="S9",
        file="src/cairn/runtime/parking.py",
        old="if self._busy == 0 and self.parked is not None:",
        new="if self.parked is not None:",
        tests=("tests/runtime/test_waits.py::test_a_step_beside_a_wait_is_not_cut_off_by_the_park",),
    ),
    Mutation(
        name="a run does not overlap the last one",
        promise="L4",
        file="src/cairn/runtime/schedule_state.py",
        old="return bool(self.active) and not self.overlap",
        new="return False",
        tests=("tests/runtime/test_schedule.py::test_a_run_does_not_begin_while_the_last_one_goes_on_unless_asked",),
    ),
    Mutation(
        name="what was missed is run once",
        promise="L4",
        file="src/cairn/runtime/schedule.py",
        old="    occurrence = latest(when, start, now)",
        new="    occurrence = start",
        tests=(
            "tests/runtime/test_schedule.py::test_what_was_missed_while_nothing_ran_is_run_as_the_schedule_says[once-expected0]",
        ),
    ),
    Mutation(
        name="a life and a work share no batch",
        promise="S14",
        file="src/cairn/runtime/together.py",
        old="    return fiber not in lives and step not in works.get(fiber, ())",
        new="    return True",
        tests=("tests/runtime/test_together.py::test_a_step_is_completed_once_whoever_waits_beside_it",),
    ),
    Mutation(
        name="the tries of a step are counted",
        promise="L3",
        file=STEP,
        old="    if tries >= retry.attempts:",
        new="    if False:",
        tests=("tests/runtime/test_steps.py::test_a_step_whose_tries_are_spent_has_failed_for_good",),
    ),
    # --- ownership
    Mutation(
        name="a worker of this process is alive",
        promise="S4",
        file=OWNERS,
        old="identity is None or identity in _held or",
        new="identity is None or",
        tests=(f"{LEASES}::test_two_workers_of_one_process_see_each_other_alive",),
    ),
    Mutation(
        name="a copy of a lock file proves nothing",
        promise="S4",
        file=OWNERS,
        old=" or not self._recorded(row, identity):",
        new=":",
        tests=(f"{LEASES}::test_a_missing_or_exchanged_file_proves_nothing",),
    ),
    Mutation(
        name="a live owner's work is left to it",
        promise="S4",
        file=WORKER,
        old="rows = await self._due(limit, self._census.live)",
        new="rows = await self._due(limit, frozenset())",
        tests=(f"{WORKERS}::test_a_live_workers_instances_are_left_to_it",),
    ),
    Mutation(
        name="a worker without its lease stops",
        promise="S4",
        file=WORKER,
        old="            await self._lose_lease()",
        new="            pass",
        tests=(f"{WORKERS}::test_a_worker_that_cannot_renew_its_lease_stops_working_before_others_may_start",),
    ),
    Mutation(
        name="nothing is said of a settled fiber",
        promise="S7",
        file="src/cairn/runtime/instance.py",
        old="if (refusal := self.runtime.refusal(record)) is not None:",
        new="if (refusal := None) is not None:",
        tests=("tests/runtime/test_instance.py::test_a_record_of_a_settled_fiber_is_refused_before_it_reaches_the_log",),
    ),
    # --- forks and merged rows, above the store
    Mutation(
        name="a call under way where a conversation forks is unknown",
        promise="S9",
        file="src/cairn/harness/fork.py",
        old='yield outcome(control, call, "unknown"',
        new='yield outcome(control, call, "aborted"',
        tests=(f"{FORKS}::test_s9_a_call_under_way_has_an_unknown_outcome_in_the_fork_and_one_not_begun_none",),
    ),
    Mutation(
        name="a fork's own batch is for the place it parts at",
        promise="S3",
        file="src/cairn/harness/handle.py",
        old="if forked.offset == at:",
        new="if forked.offset >= at:",
        tests=(f"{FORKS}::test_s3_a_fork_that_meets_a_merge_parts_where_it_says",),
    ),
    Mutation(
        name="a follower inside a merged row is given the rest",
        promise="S3",
        file="src/cairn/harness/handle.py",
        old="if entry.merged_from is not None and entry.merged_from <= after:",
        new="if False:",
        tests=(f"{MERGES}::test_s3_a_follower_who_comes_back_to_an_offset_in_the_middle_is_given_the_rest",),
    ),
    Mutation(
        name="only what is settled is merged",
        promise="S3",
        file="src/cairn/harness/tidying.py",
        old="if state.control.submission is not None or state.control.queue:",
        new="if False:",
        tests=(f"{MERGES}::test_an_answer_that_is_not_settled_is_left_alone",),
    ),
]
