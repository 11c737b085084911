"""`cairn demo`: a real bug, a real shell, a model that follows a script, and a `kill -9` in the middle.

    project/       a small Python project with a report, a bug and a failing test; it is copied, never changed
    job.py         the folder of one demo: the copy, the agent's file, the store; and what it must look like afterwards
    script.py      what the scripted engineer does next, given what the tools have returned (knowledge.py, ideas.py)
    model.py       the script as a model that streams
    witness.py     what was really done, beside the log
    moment.py      when the worker is killed: chosen from a seed
    standing.py    how far the log has come: what is finished, what is open
    report.py      what the kill cost: the log compared with the witness
    screen.py      how it looks

The verb itself, which starts and kills processes, is `framework/cli/demo.py`.
"""
