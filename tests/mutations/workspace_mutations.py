"""The sentences that keep what the workspace promises, and what each becomes when it is broken. See run.py."""

from __future__ import annotations

from tests.mutations.run import Mutation

RUNTIME = "src/cairn/runtime"
TREE = f"{RUNTIME}/files_tree.py"
PATHS = f"{RUNTIME}/files_paths.py"
OVERLAY = f"{RUNTIME}/files_overlay.py"
DRAFT = f"{RUNTIME}/workspace_draft.py"
EXCHANGE = f"{RUNTIME}/workspace_exchange.py"
GIT = f"{RUNTIME}/workspace_git.py"

FILES = "tests/workspace/test_files.py"
DRAFTS = "tests/workspace/test_drafts.py"
HISTORY = "tests/workspace/test_history.py"
OUT = "tests/workspace/test_exchange.py"

MUTATIONS = [
    Mutation(
        name="the root is the top",
        promise="S13",
        file=PATHS,
        old="_node(nodes, here).parent or ROOT",
        new="_node(nodes, here).parent",
        tests=(f"{FILES}::test_no_path_leads_anywhere_but_into_the_workspace",),
    ),
    Mutation(
        name="links lead forty times and no more",
        promise="X1",
        file=PATHS,
        old="            if links > LINKS_MAX:\n",
        new="            if links > LINKS_MAX + 1:\n",
        tests=(f"{FILES}::test_no_path_leads_anywhere_but_into_the_workspace",),
    ),
    Mutation(
        name="a directory is not moved into itself",
        promise="S14",
        file=TREE,
        old='                return "is to be below itself"\n',
        new="                return None\n",
        tests=(f"{DRAFTS}::test_the_log_takes_no_change_that_does_not_follow",),
    ),
    Mutation(
        name="a change follows the one it was made after",
        promise="S14",
        file=TREE,
        old="        if base != self.revision:\n",
        new="        if base > self.revision:\n",
        tests=(f"{DRAFTS}::test_the_log_takes_no_change_that_does_not_follow",),
    ),
    Mutation(
        name="what others changed meanwhile is a conflict",
        promise="S2",
        file=OVERLAY,
        old="            if id < self.first and not _same(was_node, now):\n",
        new="            if id < self.first and was_node is not None and now is None:\n",
        tests=(f"{DRAFTS}::test_changes_of_others_meanwhile_are_kept_and_the_same_ones_conflict",),
    ),
    Mutation(
        name="what is staged waits for its record",
        promise="S2",
        file=TREE,
        old="        staged = self._staged if record.staged and record.staged == self._transaction else []\n",
        new="        staged = self._staged\n",
        tests=(f"{DRAFTS}::test_what_was_staged_and_not_finished_has_no_effect_on_what_comes_next",),
    ),
    Mutation(
        name="content that a change names is kept",
        promise="S1",
        file=DRAFT,
        old="[*also, *records], blobs=self.blobs)",
        new="[*also, *records])",
        tests=(f"{HISTORY}::test_collection_takes_what_nobody_can_read_and_nothing_else",),
    ),
    Mutation(
        name="a quota is of what would be there",
        promise="X7",
        file=OVERLAY,
        old="            if more > 0 and used + more > most:\n",
        new="            if more > 0 and used > most:\n",
        tests=(f"{FILES}::test_a_write_over_the_quota_is_refused_whole",),
    ),
    Mutation(
        name="an archive does not lead through its links",
        promise="X1",
        file=EXCHANGE,
        old="        if entry is not None and entry.is_link:\n            fail(errno.ELOOP",
        new="        if entry is not None and entry.is_file:\n            fail(errno.ELOOP",
        tests=(f"{OUT}::test_an_archive_changes_nothing_outside_of_where_it_is_unpacked",),
    ),
    Mutation(
        name="links do not leave what is exported",
        promise="X1",
        file=PATHS,
        old='if not link.target.startswith("/") and ".." not in parts[ups:] and ups <= len(above):',
        new='if not link.target.startswith("/") and ups <= len(above):',
        tests=(f"{OUT}::test_links_never_lead_out_of_what_is_exported",),
    ),
    Mutation(
        name="a repository names no .git",
        promise="X1",
        file=GIT,
        old='part.lower() == ".git" or ',
        new="",
        tests=("tests/workspace/test_git.py::test_a_repository_cannot_name_places_that_a_checkout_does_not_have",),
    ),
]
