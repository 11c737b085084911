"""The sentences that hold a program, and what each becomes when it is broken. See `tests/mutations/`."""

from __future__ import annotations

from tests.mutations.run import Mutation

RUNTIME = "src/cairn/runtime"
HARNESS = "src/cairn/harness"
TESTS = "tests/programs"
LAWS = f"{TESTS}/test_program_laws.py"
SCENES = f"{TESTS}/test_codemode_crash.py"

MUTATIONS = [
    # --- what was kept
    Mutation(
        name="a state is believed only of this very text",
        promise="X2",
        file=f"{RUNTIME}/program_dump.py",
        old="return kept if (kept.version, kept.program, kept.owner) == (self._version, self._program, self.owner) else None",
        new="return kept if (kept.version, kept.owner) == (self._version, self.owner) else None",
        tests=(f"{SCENES}::test_a_text_that_does_something_else_than_its_journal_is_diverged_and_does_nothing",),
    ),
    Mutation(
        name="a state is believed only with our signature",
        promise="X2",
        file=f"{RUNTIME}/program_dump.py",
        old='if not hmac.compare_digest(hmac.digest(self._secret, body, "sha256"), signature):',
        new='if hmac.digest(self._secret, body, "sha256") == b"":',
        tests=(f"{LAWS}::test_a_state_that_somebody_else_signed_is_not_believed",),
    ),
    Mutation(
        name="a call that is not the journal's ends the program",
        promise="S9",
        file=f"{RUNTIME}/program_calls.py",
        old="if known is not None and known != entry:",
        new="if known is not None and known != entry and False:",
        tests=(f"{SCENES}::test_a_text_that_does_something_else_than_its_journal_is_diverged_and_does_nothing",),
    ),
    # --- calls
    Mutation(
        name="outcomes are told in the order in which they were decided",
        promise="S9",
        file=f"{RUNTIME}/program_calls.py",
        old="return min(there, key=lambda number: self.outcomes[number].order)",
        new="return min(there)",
        tests=(f"{LAWS}::test_outcomes_are_told_in_the_order_in_which_they_were_decided",),
    ),
    Mutation(
        name="the intent of a call is durable before it is made",
        promise="S8",
        file=f"{RUNTIME}/program_calls.py",
        old="                repeat=function.repeat,\n",
        new='                repeat="safe",\n',
        tests=(f"{LAWS}::test_a_call_that_is_never_repeated_is_not_repeated[journal]",),
    ),
    Mutation(
        name="a program makes no more calls than it may",
        promise="X2",
        file=f"{RUNTIME}/program_calls.py",
        old="if self.made > self.limits.calls:",
        new="if self.made > 100 * self.limits.calls:",
        tests=(f"{SCENES}::test_a_limit_is_told_to_the_model_before_and_after[calls]",),
    ),
    Mutation(
        name="what holds a program up comes before each call",
        promise="S8",
        file=f"{RUNTIME}/program_calls.py",
        old="if self._gate is not None and call.function not in self.files:",
        new="if self._gate is not None and call.function not in self.files and False:",
        tests=(f"{LAWS}::test_what_holds_a_program_up_comes_before_each_call",),
    ),
    Mutation(
        name="a call that needs a person's yes is not made without one",
        promise="X10",
        file=f"{RUNTIME}/program_calls.py",
        old="        if not reason:\n            return None\n",
        new="        if True:\n            return None\n",
        tests=(f"{TESTS}/test_program_questions.py::test_a_rejection_is_told_with_its_reason_and_the_program_goes_on",),
    ),
    Mutation(
        name="what two programs ask has two names",
        promise="X10",
        file=f"{HARNESS}/program_names.py",
        old='return f"{submission}:{call}"',
        new='return "program"',
        tests=(f"{SCENES}::test_two_programs_at_once_ask_apart_and_an_answer_to_one_is_none_to_the_other",),
    ),
    # --- grants
    Mutation(
        name="a grant to read files is none to write them",
        promise="X2",
        file=f"{RUNTIME}/program_files.py",
        old='if self._grant != "write":',
        new='if self._grant == "none":',
        tests=(f"{TESTS}/test_program_files.py::test_a_grant_to_read_is_none_to_write_and_no_grant_is_nothing",),
    ),
    Mutation(
        name="a saved program is the text of its digest",
        promise="X2",
        file=f"{HARNESS}/snippets.py",
        old="if saved.digest == snippet.digest:",
        new="if True:",
        tests=(f"{TESTS}/test_snippets.py::test_a_text_that_is_not_the_one_of_its_digest_is_nobodys_program",),
    ),
    Mutation(
        name="an argument does not climb out of a path",
        promise="X2",
        file=f"{HARNESS}/openapi_module.py",
        old='return quote(text, safe="")',
        new="return text",
        tests=(f"{TESTS}/test_openapi_module.py::test_an_argument_does_not_climb_out_of_its_path[../../admin]",),
    ),
    Mutation(
        name="a redirect is not followed",
        promise="X2",
        file=f"{HARNESS}/openapi_module.py",
        old="follow_redirects=False",
        new="follow_redirects=True",
        tests=(f"{TESTS}/test_openapi_module.py::test_answers_that_are_none_say_what_to_do",),
    ),
]
