"""The sentences that hold a shell worker and its files, and what each becomes when it is broken. See `tests/mutations/`."""

from __future__ import annotations

from tests.mutations.run import Mutation

SANDBOX = "src/cairn/harness/sandbox"
SHELL = "tests/sandboxes/test_virtual_shell.py"
HOSTILE = "tests/sandboxes/test_virtual_hostile.py"
CRASH = "tests/sandboxes/test_virtual_crash.py"
AGENT = "tests/sandboxes/test_virtual_agent.py"

_ENEMY = f"{HOSTILE}::test_what_an_enemy_says_ends_it_and_changes_nothing"
_POINTS = f"{CRASH}::test_files_and_transcript_agree_after_a_crash_at_every_durable_append"
_FAILS = f"{AGENT}::test_a_command_that_fails_keeps_its_files_and_one_that_is_stopped_leaves_none"

MUTATIONS = [
    # --- the call and its files
    Mutation(
        name="files are in the batch of the outcome",
        promise="S1",
        file="src/cairn/harness/call_runner.py",
        old="changes += await files.stage()",
        new="await attempt.commit(await files.stage())",
        tests=(_POINTS, f"{AGENT}::test_files_and_shell_are_in_the_batch_of_the_outcome"),
    ),
    Mutation(
        name="a call that did not return leaves no file",
        promise="S1",
        file="src/cairn/harness/call_runner.py",
        old="if files is not None and live.has_returned:",
        new="if files is not None:",
        tests=(_FAILS,),
    ),
    Mutation(
        name="the shell's state rides with the files",
        promise="S1",
        file="src/cairn/harness/call_files.py",
        old="if self._view.remembered is not None:",
        new="if False:",
        tests=(_POINTS, f"{AGENT}::test_files_and_shell_are_in_the_batch_of_the_outcome"),
    ),
    Mutation(
        name="a command that timed out has done nothing",
        promise="S1",
        file=f"{SANDBOX}/shell/main.py",
        old="operations, contents = ([], []) if timed_out else changes(",
        new="timed_out = False\n        operations, contents = changes(",
        tests=(f"{SHELL}::test_a_timeout_keeps_the_output_and_nothing_else",),
    ),
    # --- the worker
    Mutation(
        name="no call but those on the list",
        promise="X2",
        file=f"{SANDBOX}/shell/jail.py",
        old="    if _filter(libc):",
        new="    if False and _filter(libc):",
        tests=(f"{HOSTILE}::test_a_real_worker_has_given_up_all_it_can",),
    ),
    Mutation(
        name="a worker that cannot be closed in is not used",
        promise="X2",
        file=f"{SANDBOX}/virtual_process.py",
        old="if needs_jail and sys.platform",
        new="if False and sys.platform",
        tests=(f"{HOSTILE}::test_a_worker_that_cannot_be_closed_in_is_not_used",),
    ),
    Mutation(
        name="a worker serves one tenant",
        promise="X11",
        file=f"{SANDBOX}/virtual_pool.py",
        old="if worker.tenant == tenant:",
        new="if True:",
        tests=(f"{SHELL}::test_a_worker_serves_one_tenant",),
    ),
    Mutation(
        name="whoever waits longest is served first",
        promise="F8",
        file=f"{SANDBOX}/virtual_pool.py",
        old="turn = self._waiting.popleft()",
        new="turn = self._waiting.pop()",
        tests=(f"{SHELL}::test_a_hundred_agents_share_a_few_workers",),
    ),
    # --- what it says
    Mutation(
        name="a size is bounded before it is read",
        promise="X2",
        file=f"{SANDBOX}/virtual_wire.py",
        old="if header > HEADER_BYTES_MAX or payload > PAYLOAD_BYTES_MAX:",
        new="if False:",
        tests=(f"{HOSTILE}::test_a_huge_announcement_is_refused_before_anything_is_read",),
    ),
    Mutation(
        name="contents are as long as was announced",
        promise="X2",
        file=f"{SANDBOX}/virtual_overlay.py",
        old="    if at != len(contents):",
        new="    if False:",
        tests=(f"{_ENEMY}[more than announced]",),
    ),
    Mutation(
        name="a link leads into the workspace",
        promise="X1",
        file=f"{SANDBOX}/virtual_overlay.py",
        old="await draft.symlink(target_inside(each.target), each.path)",
        new="await draft.symlink(each.target, each.path)",
        tests=(f"{_ENEMY}[a link out of the shell]",),
    ),
    Mutation(
        name="what was half done is not kept",
        promise="S1",
        file=f"{SANDBOX}/virtual_view.py",
        old="        self.is_spoiled = bool(done.changes)\n        try:",
        new="        self.is_spoiled = False\n        try:",
        tests=(f"{AGENT}::test_a_tool_that_goes_on_after_its_command_could_not_be_kept_keeps_nothing",),
    ),
]
