"""The sentences that bind an answer to what was asked, and what each becomes when it is broken. See `tests/mutations/`."""

from __future__ import annotations

from tests.mutations.run import Mutation

WAITS = "src/cairn/runtime/waits.py"
HARNESS = "src/cairn/harness"
FOLD = "tests/objects/test_answers_waits.py"
FORGED = "tests/objects/test_answers_forged.py"
CALLS = "tests/objects/test_answers.py"
OUTSIDE = "tests/objects/test_answers_outside.py"
ANSWERING = "src/cairn/runtime/answering.py"
OBJECTS = "tests/objects/test_approvals_workflows.py"

_NONE = f"{FOLD}::test_an_answer_that_is_none_is_none_in_the_fold_too"

MUTATIONS = [
    # --- in the log
    Mutation(
        name="an answer is bound to the digest of what was asked",
        promise="X10",
        file=WAITS,
        old="if wait.digest != digest:",
        new="if wait.digest != digest and False:",
        tests=(f"{_NONE}[other arguments]",),
    ),
    Mutation(
        name="an answer is bound to who may give it",
        promise="X10",
        file=WAITS,
        old="if wait.by and by not in wait.by:",
        new="if wait.by and by not in wait.by and False:",
        tests=(f"{_NONE}[somebody else]",),
    ),
    Mutation(
        name="an answer after its time is none",
        promise="X10",
        file=WAITS,
        old="if wait.until is not None and at > wait.until:",
        new="if wait.until is not None and at > wait.until and False:",
        tests=(f"{_NONE}[too late]",),
    ),
    Mutation(
        name="a message that came before its waiter was recorded is seen",
        promise="L1",
        file=WAITS,
        old="other.method == wait.event and other.ordinal > wait.after",
        new="other.method == wait.event and False",
        tests=(f"{FOLD}::test_work_that_was_accepted_before_its_waiter_was_recorded_is_not_missed",),
    ),
    # --- where it is given
    Mutation(
        name="an answer to other arguments is refused at once",
        promise="X10",
        file=f"{HARNESS}/answers.py",
        old="if digest != asking.digest:",
        new="if digest != asking.digest and False:",
        tests=(f"{FORGED}::test_an_answer_that_is_none_is_refused_and_changes_nothing[for other arguments]",),
    ),
    Mutation(
        name="who may not answer is refused at once",
        promise="X10",
        file=f"{HARNESS}/answers.py",
        old="if asking.by and by not in asking.by:",
        new="if asking.by and by not in asking.by and False:",
        tests=(f"{FORGED}::test_an_answer_that_is_none_is_refused_and_changes_nothing[by another user]",),
    ),
    Mutation(
        name="of two answers at once one is the answer",
        promise="X10",
        file=f"{HARNESS}/answers.py",
        old="if came is not None and came.ordinal == ordinal:",
        new="if came is not None:",
        tests=(f"{FORGED}::test_of_two_answers_at_once_one_is_the_answer",),
    ),
    Mutation(
        name="an output fits what its tool says",
        promise="X10",
        file=f"{HARNESS}/asking.py",
        old="if isinstance(answer, Output) and schema is not None:",
        new="if isinstance(answer, Output) and schema is not None and False:",
        tests=(
            f"{FORGED}::test_an_answer_that_is_none_is_refused_and_changes_nothing[an output that does not fit its schema]",
        ),
    ),
    Mutation(
        name="who answers is whom the credential names",
        promise="X5",
        file="src/cairn/framework/http/answers.py",
        old="await _give(service.handle(request), given, request.identity.name)",
        new='await _give(service.handle(request), given, "ann")',
        tests=(f"{OUTSIDE}::test_who_answers_is_whom_the_token_names",),
    ),
    # --- to fibers of objects
    Mutation(
        name="who may not answer an object is told so",
        promise="X10",
        file=ANSWERING,
        old="    if asked.by and by not in asked.by:",
        new="    if False:",
        tests=(f"{OBJECTS}::test_an_answer_that_is_none_is_refused_and_changes_nothing",),
    ),
    Mutation(
        name="what asks for leave takes a yes or a no",
        promise="X10",
        file=ANSWERING,
        old="        if asked.is_approval:",
        new="        if False:",
        tests=(f"{OBJECTS}::test_python_is_refused_what_http_is",),
    ),
    Mutation(
        name="what asks for a value takes no yes",
        promise="X10",
        file=ANSWERING,
        old="        if not asked.is_approval:",
        new="        if False:",
        tests=(f"{OBJECTS}::test_a_question_that_asks_for_no_leave_takes_a_value_and_no_yes",),
    ),
    Mutation(
        name="of two answers to an object one is the answer",
        promise="X10",
        file=ANSWERING,
        old="if came is not None and came.ordinal == ordinal:",
        new="if came is not None:",
        tests=(f"{OBJECTS}::test_an_answer_that_another_overtook_is_told_so",),
    ),
    Mutation(
        name="another answer after the first is refused",
        promise="X10",
        file=ANSWERING,
        old="if not _same(one.answer.answer, raw):",
        new="if False:",
        tests=(f"{OBJECTS}::test_a_step_of_a_workflow_is_answered_over_http",),
    ),
    Mutation(
        name="two that ask the same are told apart",
        promise="X10",
        file=ANSWERING,
        old="    if len(same) == 1:",
        new="    if same:",
        tests=(f"{OBJECTS}::test_two_fibers_that_ask_the_same_are_told_apart",),
    ),
    Mutation(
        name="who answers an object is whom the credential names",
        promise="X5",
        file="src/cairn/framework/http/object_answers.py",
        old="by=request.identity.name",
        new='by="ann"',
        tests=(f"{OBJECTS}::test_an_answer_that_is_none_is_refused_and_changes_nothing",),
    ),
    Mutation(
        name="nobody answers a workflow in another's name",
        promise="X10",
        file="src/cairn/runtime/workflow.py",
        old="            by = draft.call.by  # nobody",
        new="            pass  # nobody",
        tests=(f"{OBJECTS}::test_nobody_approves_in_anothers_name_by_a_socket",),
    ),
    Mutation(
        name="what waits everywhere is what the caller sees",
        promise="X11",
        file="src/cairn/framework/http/inbox.py",
        old="if not request.identity.sees(address.kind, address.id):",
        new="if False:",
        tests=(f"{OBJECTS}::test_what_waits_everywhere_is_what_the_caller_may_read",),
    ),
    Mutation(
        name="what waits everywhere is the tenant's",
        promise="X11",
        file="src/cairn/framework/http/inbox.py",
        old="instances(tenant=tenant, ",
        new="instances(",
        tests=(f"{OBJECTS}::test_what_waits_everywhere_is_what_the_caller_may_read",),
    ),
    # --- what comes of it
    Mutation(
        name="a rule that raises asks",
        promise="X9",
        file=f"{HARNESS}/asking.py",
        old='return f"whether it needs an approval could not be decided: {type(error).__name__}: {error}"',
        new="return None",
        tests=(f"{CALLS}::test_a_rule_says_of_the_arguments_whether_a_call_asks",),
    ),
    Mutation(
        name="a fork inherits no question",
        promise="S12",
        file=f"{HARNESS}/fork.py",
        old="elif call.status in (CallStatus.PLANNED, CallStatus.AWAITING):",
        new="elif call.status is CallStatus.PLANNED:",
        tests=(f"{CALLS}::test_a_fork_inherits_no_question",),
    ),
    Mutation(
        name="an approved barrier runs alone",
        promise="P5",
        file=f"{HARNESS}/batch.py",
        old="free = not (unfinished_before or called) if rule is True",
        new="free = not unfinished_before if rule is True",
        tests=(f"{CALLS}::test_an_approved_barrier_runs_alone", "tests/harness/test_batch.py"),
    ),
]
