"""Files read anew: which modules, which files, and what happens when they cannot be used."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cairn import Agent, App
from cairn.clock import SystemClock
from cairn.framework import looking
from cairn.framework.fresh import Modules
from cairn.framework.looking import Places, changed
from cairn.framework.reload import Change, Loaded, Reloader
from cairn.testing.scripted import Say, ScriptedModel

#: Seconds for a change to be seen: a guard against hanging.
PATIENCE_SECONDS = 20


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


# --- modules --------------------------------------------------------------------------------------------------------


def test_an_edit_of_the_same_size_in_the_same_second_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled file is told from its source by seconds and size: here both are the same."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = write(tmp_path, "reload_one.py", "SAID = 'old'\n")
    module = importlib.import_module("reload_one")
    assert module.__spec__ is not None and os.path.exists(module.__spec__.cached or "")
    at = file.stat().st_mtime_ns
    write(tmp_path, "reload_one.py", "SAID = 'new'\n")
    os.utime(file, ns=(at, at))

    found = Modules(tmp_path).read_anew(lambda: importlib.import_module("reload_one").SAID, is_good=lambda said: True)

    assert found == "new" == sys.modules["reload_one"].SAID and module.SAID == "old"


def test_what_is_not_good_leaves_all_as_it_was(tmp_path: Path) -> None:
    """Whether it raises or is judged: the modules are the very same objects as before, helpers and packages included."""
    write(tmp_path, "reload_package/helper.py", "WHAT = 1\n")
    write(tmp_path, "reload_two.py", "from reload_package import helper\n")
    importlib.import_module("reload_two")
    modules = Modules(tmp_path)
    before = modules.loaded()
    assert set(before) == {"reload_two", "reload_package", "reload_package.helper"}
    write(tmp_path, "reload_package/helper.py", "WHAT = = 1\n")
    write(tmp_path, "reload_new.py", "")

    def read() -> None:
        importlib.import_module("reload_new")
        importlib.import_module("reload_two")

    with pytest.raises(SyntaxError):
        modules.read_anew(read, is_good=lambda found: True)
    assert modules.loaded() == before
    write(tmp_path, "reload_package/helper.py", "WHAT = 2\n")
    modules.read_anew(read, is_good=lambda found: False)
    assert modules.loaded() == before and sys.modules["reload_two"].helper.WHAT == 1
    modules.read_anew(read, is_good=lambda found: True)
    assert sys.modules["reload_two"].helper.WHAT == 2


def test_only_the_projects_own_modules_are_read_anew(tmp_path: Path) -> None:
    """Not what it installed below itself, not ours, not what lies beside it."""
    write(tmp_path, "project/.venv/lib/site-packages/reload_installed.py", "")
    write(tmp_path, "reload_beside.py", "")
    write(tmp_path, "project/reload_own.py", "")
    sys.path.insert(0, str(tmp_path / "project"))
    sys.path.insert(0, str(tmp_path / "project/.venv/lib/site-packages"))
    for name in ("reload_installed", "reload_beside", "reload_own"):
        importlib.import_module(name)

    assert set(Modules(tmp_path / "project").loaded()) == {"reload_own"}
    here = Path(__file__).parent.parent.parent
    assert not any(name.partition(".")[0] == "cairn" for name in Modules(here).loaded())


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_look_sees_code_and_prompts_where_agents_are_and_code_elsewhere(tmp_path: Path) -> None:
    """What tools write, what is installed and what is hidden is no edit."""
    for path in (
        "agents/one.py", "agents/two/instructions.md", "agents/two/tools/look.py", "helper.py", "deep/er.py", "notes.md",
        "agents/__pycache__/one.py", "agents/.hidden/x.py", "agents/node_modules/x.md", "agents/picture.png",
    ):  # fmt: skip
        write(tmp_path, path, "")
    places = Places((tmp_path / "agents",), (tmp_path,))

    seen = {str(Path(path).relative_to(tmp_path)) for path in places.look()}
    assert seen == {"agents/one.py", "agents/two/instructions.md", "agents/two/tools/look.py", "helper.py"}
    deep = Places((tmp_path / "agents",), (tmp_path,), deep=tmp_path).look()
    assert str(tmp_path / "deep/er.py") in deep


def test_what_came_went_or_changed_is_a_change(tmp_path: Path) -> None:
    """An edit that an editor makes by putting another file in the place counts, with the same time and size too."""
    kept, gone, edited, replaced = (write(tmp_path, f"{name}.py", "x") for name in ("kept", "gone", "edited", "replaced"))
    places = Places((), (tmp_path,))
    before = places.look()
    gone.unlink()
    edited.write_text("yy")
    other = write(tmp_path, "other", "x")
    at = replaced.stat().st_mtime_ns
    os.utime(other, ns=(at, at))
    other.replace(replaced)
    came = write(tmp_path, "came.py", "")

    assert changed(before, places.look()) == sorted(map(str, (came, edited, gone, replaced)))
    assert changed(before, before) == [] and kept.exists()


def test_a_folder_that_holds_the_world_does_not_stop_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many files are looked at, in at most so many folders."""
    monkeypatch.setattr(looking, "FILES_MAX", 20)
    monkeypatch.setattr(looking, "FOLDERS_MAX", 5)
    for number in range(30):
        write(tmp_path, f"flat/{number:02}.py", "")
        write(tmp_path, f"deep/{number:02}/x.py", "")

    assert len(Places((), (tmp_path / "flat",)).look()) == 20
    assert len(Places((tmp_path / "deep",), ()).look()) == 4


# --- both -----------------------------------------------------------------------------------------------------------


def test_an_edit_that_comes_while_files_are_read_is_not_missed(tmp_path: Path) -> None:
    """What changed between a look and the reading of it is seen by the next look."""
    write(tmp_path, "said.py", "SAID = 'one'\n")
    changes: asyncio.Queue[Change] = asyncio.Queue()
    texts = iter(["three"])

    def load() -> Loaded:
        said = importlib.import_module("said").SAID
        if said == "two":
            write(tmp_path, "said.py", f"SAID = '{next(texts)}'\n")
        return Loaded((Agent("toy", model=ScriptedModel(lambda request: Say(said))),))

    async def main() -> None:
        reloader = Reloader(load, root=tmp_path, agents=(), clock=SystemClock())
        async with App(reloader.first().agents, store=":memory:") as app:
            following = asyncio.create_task(reloader.run(app, changes.put_nowait))
            assert await answer(app, "a") == "one"
            write(tmp_path, "said.py", "SAID = 'two'\n")
            for _ in range(2):
                change = await asyncio.wait_for(changes.get(), PATIENCE_SECONDS)
                assert change.problems == () and change.files == (str(tmp_path / "said.py"),)
            assert await answer(app, "b") == "three"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())


def test_what_breaks_in_reading_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    """Whatever a project's code raises, and agents that cannot be together: the last good ones answer on."""
    write(tmp_path, "said.py", "N = 0\n")
    changes: asyncio.Queue[Change] = asyncio.Queue()

    def load() -> Loaded:
        number = importlib.import_module("said").N
        if number == 1:
            raise RuntimeError("a defect")
        return Loaded(tuple(Agent("toy", model=ScriptedModel(lambda request: Say(f"{number}"))) for _ in range(number or 1)))

    async def main() -> None:
        reloader = Reloader(load, root=tmp_path, agents=(), clock=SystemClock())
        async with App(reloader.first().agents, store=":memory:") as app:
            following = asyncio.create_task(reloader.run(app, changes.put_nowait))
            for number, why in ((1, "RuntimeError: a defect"), (2, "two agents are named 'toy'")):
                write(tmp_path, "said.py", f"N = {number}\n")
                change = await asyncio.wait_for(changes.get(), PATIENCE_SECONDS)
                assert why in change.problems[0]
                assert await answer(app, f"c{number}") == "0"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())


async def answer(app: App, id: str) -> str:
    return (await (await app.conversation("toy", id).send("?")).reply()).text
