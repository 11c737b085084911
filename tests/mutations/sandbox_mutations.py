"""The sentences that hold an isolated command and its files, and what each becomes when broken. See `tests/mutations/`."""

from __future__ import annotations

from tests.mutations.run import Mutation

SANDBOX = "src/cairn/harness/sandbox"
BUBBLEWRAP = f"{SANDBOX}/bubblewrap.py"
ESCAPES = "tests/sandboxes/test_escapes.py"
BOMBS = "tests/sandboxes/test_bombs.py"
PATHS = "tests/sandboxes/test_paths.py"
MIRROR = "tests/sandboxes/test_mirror.py"
SURVIVORS = "tests/sandboxes/test_survivors.py"
SSH = "tests/sandboxes/test_ssh.py"


def attempt(name: str, user: str = "nobody") -> str:
    return f"{ESCAPES}::test_an_isolated_command_does_not_reach[{name}-{user}]"


MUTATIONS = [
    # --- what a command can reach
    Mutation(
        name="no network unless given",
        promise="X2",
        file=BUBBLEWRAP,
        old='chosen += ["--unshare-net"]',
        new="pass",
        tests=(attempt("the host's loopback"),),
    ),
    Mutation(
        name="the kernel's settings cannot be written, not even by root",
        promise="X2",
        file=BUBBLEWRAP,
        old='for path in ("/proc", "/dev", "/"):',
        new='for path in ("/dev", "/"):',
        tests=(attempt("system settings", "root"),),
    ),
    Mutation(
        name="doors of the kernel are closed",
        promise="X2",
        file=f"{SANDBOX}/seccomp.py",
        old="lines += [_jump(_EQUAL, number, 0, 1), _refuse(errno.EPERM)]",
        new="lines += []",
        tests=(attempt("key rings"), attempt("tracing a child of one's own")),
    ),
    Mutation(
        name="Landlock names what can be read",
        promise="X2",
        file=f"{SANDBOX}/confinement.py",
        old='"landlock": {"read": read,',
        new='"landlock": {"read": ["/"],',
        tests=(attempt("a file by its path"),),
    ),
    # --- what a command can take
    Mutation(
        name="processes are counted",
        promise="X2",
        file=BUBBLEWRAP,
        old="launcher = _LAUNCHER.format(processes=box.processes_max + OWN_PROCESSES)",
        new="launcher = _LAUNCHER.format(processes=400)",
        tests=(f"{BOMBS}::test_a_bomb_is_contained_and_the_next_command_runs[nobody-bubblewrap-fork]",),
    ),
    Mutation(
        name="memory has a limit for each process",
        promise="X2",
        file=f"{SANDBOX}/isolated.py",
        old='own["RLIMIT_DATA"] = limits.memory_bytes',
        new="pass",
        tests=(f"{BOMBS}::test_a_bomb_is_contained_and_the_next_command_runs[nobody-bubblewrap-memory]",),
    ),
    Mutation(
        name="memory is added up",
        promise="X2",
        file=f"{SANDBOX}/memory.py",
        old="> bytes_max:",
        new="> 10 * bytes_max:",
        tests=(f"{BOMBS}::test_a_bomb_is_contained_and_the_next_command_runs[nobody-bubblewrap-memory by many]",),
    ),
    Mutation(
        name="a command dies with what watches over it",
        promise="X2",
        file=BUBBLEWRAP,
        old='["--disable-userns", "--die-with-parent", "--new-session"',
        new='["--disable-userns", "--new-session"',
        tests=(f"{SURVIVORS}::test_nothing_outlives_what_watches_over_it[all at once]",),
    ),
    # --- paths
    Mutation(
        name="no link is followed by the kernel",
        promise="X1",
        file=f"{SANDBOX}/beneath.py",
        old='_LOOK = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC',
        new='_LOOK = getattr(os, "O_PATH", 0) | os.O_CLOEXEC',
        tests=(f"{PATHS}::test_no_path_leads_outside",),
    ),
    Mutation(
        name="a set-user-id bit is not kept",
        promise="X1",
        file=f"{SANDBOX}/beneath.py",
        old="modes.S_IMODE(before.st_mode) & 0o1777",
        new="modes.S_IMODE(before.st_mode)",
        tests=(f"{PATHS}::test_a_set_user_id_bit_does_not_survive_writing",),
    ),
    # --- the workspace and its directory
    Mutation(
        name="a file looked at within the tick of its change is read again",
        promise="S1",
        file=f"{SANDBOX}/mirror.py",
        old="if known is not None and known.digest and (known.inode, known.changed, known.size) == proof:",
        new="if known is not None and known.digest and known.size == seen.size:",
        tests=(
            f"{MIRROR}::test_content_of_the_same_size_written_at_once_is_noticed",
            f"{MIRROR}::test_files_are_found_again_after_a_restart",
        ),
    ),
    Mutation(
        name="a command that was ended leaves nothing",
        promise="S1",
        file=f"{SANDBOX}/isolated_workspace.py",
        old="if is_whole:",
        new="if True:",
        tests=(f"{MIRROR}::test_a_command_that_was_dropped_leaves_nothing",),
    ),
    # --- another machine
    Mutation(
        name="a host's key has to be known",
        promise="X2",
        file=f"{SANDBOX}/ssh.py",
        old="if chosen.insecure_host_key:",
        new="if True:",
        tests=(f"{SSH}::test_a_host_whose_key_is_not_known_is_refused",),
    ),
]
