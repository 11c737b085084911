"""The sentences that keep the promises, and what each becomes when it is broken. See run.py.

Each names the fastest test that must notice. `old` is copied from the code letter by letter; when the code moves, the
runner says so and the mutation is written again.
"""

from __future__ import annotations

from tests.mutations.run import Mutation

PLAN = "src/cairn/runtime/storage/plan.py"
PRODUCER = "src/cairn/runtime/producer.py"

#: Five storms of the simulator: workers that freeze for longer than their lease and come back.
STORMS = "tests/simulation/test_ownership.py::test_a_few_storms_break_nothing"

MUTATIONS = [
    Mutation(
        name="the fence of an owner's append",
        promise="S4",
        file=PLAN,
        old="if write.epoch is not None and write.epoch != life.epoch:",
        new="if False:",
        tests=(STORMS,),
    ),
    Mutation(
        name="the fence of a claim",
        promise="S4",
        file=PLAN,
        old="if life is None or life.epoch != write.expected_epoch:",
        new="if life is None:",
        tests=(STORMS,),
    ),
    Mutation(
        name="the memory of a producer's write",
        promise="S5",
        file=PLAN,
        old="            self.remember_write(life, write.producer, write.batch, done)",
        new="            pass",
        tests=(STORMS,),
    ),
    Mutation(
        name="the memory of an admission key",
        promise="S6",
        file=PLAN,
        old="        first = self.known.admissions.get((life.n, admission.key))\n        if first is not None and",
        new="        first = None\n        if first is not None and",
        tests=(STORMS,),
    ),
]
