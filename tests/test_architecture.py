"""The laws of the code that a machine can hold: who may import whom, what pure means, who may touch the world.

Method: every module under `src/cairn` is parsed, never imported, so that what is checked is what is written. An import
inside `if TYPE_CHECKING:` is for readers and type checkers and counts for nothing.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "cairn"


# --- reading the code -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One import that happens at run time: `module` is the full dotted name, `lazy` means inside a function."""

    module: str
    line: int
    lazy: bool


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    source: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def inside(self) -> str:
        """The path below the package: `runtime/log.py`."""
        return self.path.relative_to(PACKAGE).as_posix()


def _imports(tree: ast.Module, package: str) -> Iterator[Import]:
    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child, lazy)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, lazy)
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(tree, False)


@cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        package = ".".join(parts[:-1])
        source = path.read_text()
        tree = ast.parse(source)
        found[name] = Module(name, path, source, tree, tuple(_imports(tree, package)))
    return found


def target(imported: str) -> str | None:
    """The module of ours an import names (`cairn.errors.NotFound` is `cairn.errors`), or None for somebody else's."""
    name = imported
    while name.startswith("cairn"):
        if name in modules():
            return name
        name = name.rpartition(".")[0]
    return None


def layer(module: str) -> str:
    """`runtime`, `harness`, `framework`, `testing`; `base` for clock, ids, errors; `face` for the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return "face"
    if parts[1] == "client":
        return "framework"
    return parts[1] if parts[1] in {"runtime", "harness", "framework", "testing"} else "base"


def where(module: Module, line: int) -> str:
    return f"src/cairn/{module.inside}:{line}"


# --- direction ------------------------------------------------------------------------------------------------------

#: What each layer may import. `testing` holds public tools for users' tests and may use everything but the framework.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "base": frozenset({"base"}),
    "runtime": frozenset({"base", "runtime"}),
    "harness": frozenset({"base", "runtime", "harness"}),
    "framework": frozenset({"base", "runtime", "harness", "framework"}),
    "testing": frozenset({"base", "runtime", "harness", "testing"}),
    "face": frozenset({"base", "runtime", "harness", "framework"}),
}

#: Where a layer may step outside of that, lazily, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("framework/cli/demo.py", "testing"): "the demo's model is the scripted one, and says so",
    ("framework/cli/run.py", "testing"): "the model `scripted:` runs an agent without a key",
    ("harness/models/resolve.py", "testing"): "the model `scripted:` runs an agent without a key",
}


def test_imports_go_down_and_never_up() -> None:
    """framework → harness → runtime → base: each layer is usable without the ones above it."""
    wrong = []
    for module in modules().values():
        for each in module.imports:
            found = target(each.module)
            if found is None or layer(found) in MAY_IMPORT[layer(module.name)]:
                continue
            # The package's own face (`from cairn import Agent`) is for users, not for us.
            if each.lazy and (module.inside, layer(found)) in EXCEPTIONS:
                continue
            wrong.append(f"{where(module, each.line)}: {layer(module.name)} imports {each.module}")

    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_through_others() -> None:
    """Goal: any module can be imported first. Method: depth-first search over the imports made at import time."""
    graph = {
        name: {found for each in module.imports if not each.lazy and (found := target(each.module)) and found != name}
        for name, module in modules().items()
    }
    # A package's __init__ is run before its modules; what it imports of its own is part of it.
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "import cycle: " + " → ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for each in sorted(graph[name]):
            visit(each, (*path, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


# --- who may import what --------------------------------------------------------------------------------------------

STORAGE = ("runtime/storage/",)
MODELS = ("harness/models/",)
SANDBOX = ("harness/sandbox/",)
TESTING = ("testing/",)

#: Library → the folders that may import it.
ONLY: dict[str, tuple[str, ...]] = {
    "sqlite3": STORAGE,
    "apsw": TESTING,
    "asyncpg": STORAGE,
    "pydantic_ai": MODELS,
    "genai_prices": MODELS,
    "anthropic": MODELS,
    "openai": MODELS,
    "google": MODELS,
    # An OpenAPI document is offered to programs by the one file that asks the service.
    "httpx": (*MODELS, "framework/channels/", "client/", "harness/openapi_module"),
    "mcp": ("harness/mcp_module",),
    "httpx2": (*MODELS, "harness/mcp_module"),
    "starlette": ("framework/",),
    "uvicorn": ("framework/",),
    "argparse": ("framework/cli/",),
    "rich": ("framework/",),
    "websockets": ("framework/",),
    "yaml": ("harness/skill",),
    "bashkit": ("harness/sandbox/",),
    "asyncssh": ("harness/sandbox/",),
    "e2b": ("harness/sandbox/",),
    "daytona": ("harness/sandbox/",),
    "modal": ("harness/sandbox/",),
    "pydantic_monty": ("runtime/program",),
    "dulwich": ("runtime/workspace",),
    "fsspec": ("runtime/workspace",),
    "subprocess": (*SANDBOX, *TESTING, "framework/cli/demo"),
    "multiprocessing": (*SANDBOX, *TESTING),
    "pty": SANDBOX,
    "hypothesis": TESTING,
    "pytest": TESTING,
}

#: Cost more than everything of ours, tens of milliseconds and up: imported when they are used, not before.
HEAVY = (
    "pydantic_ai", "genai_prices", "anthropic", "openai", "google", "httpx", "httpx2", "apsw", "rich", "uvicorn", "websockets",
    "yaml", "bashkit", "asyncssh", "e2b", "daytona", "modal", "pydantic_monty", "dulwich", "fsspec", "mcp",
)  # fmt: skip

#: Files written against one heavy library may import it at their top; then nobody may import *them* at theirs.
BOUND = (
    "harness/models/", "harness/sandbox/shell/", "testing/disk", "testing/providers/", "framework/http/connection",
    "framework/http/serving", "framework/http/upgraded", "runtime/workspace_fsspec",
)  # fmt: skip


@pytest.mark.parametrize("library", sorted(ONLY))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    """A driver, a provider, a server, a process: each behind one folder, so that it can be exchanged and audited."""
    wrong = [
        f"{where(module, each.line)}: {each.module}"
        for module in modules().values()
        for each in module.imports
        if each.module.split(".")[0] == library and not module.inside.startswith(ONLY[library])
    ]

    assert not wrong, f"{library} belongs to {', '.join(ONLY[library])}:\n" + "\n".join(wrong)


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    """`import cairn` and `cairn --help` stay cheap, and a kill is not followed by seconds of imports.

    Method: whatever imports a heavy library when it is imported, directly or through others, is heavy itself. Only files
    written against such a library may be, and never a package's `__init__`, which comes with every module in it.
    """
    heavy: dict[str, str] = {}
    grew = True
    while grew:
        grew = False
        for name, module in modules().items():
            for each in module.imports:
                through = each.module if each.module.split(".")[0] in HEAVY else target(each.module)
                if name in heavy or each.lazy or through is None:
                    continue
                if through.split(".")[0] in HEAVY or through in heavy:
                    heavy[name] = f"{where(module, each.line)}: {each.module}"
                    grew = True

    wrong = [
        f"{reason} makes {name} heavy"
        for name, reason in heavy.items()
        if not modules()[name].inside.startswith(BOUND) or modules()[name].path.name == "__init__.py"
    ]

    assert not wrong, "\n".join(wrong)


# --- the world ------------------------------------------------------------------------------------------------------

#: Calls that read time or randomness. Only clock.py and ids.py make them; everybody else is given a Clock and Ids.
AMBIENT = re.compile(
    r"^(time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|clock_gettime|sleep|process_time)"
    r"|datetime\.(datetime\.)?(now|utcnow|today)|date\.today"
    r"|random\.\w+|secrets\.\w+|uuid\.uuid\w+|os\.urandom|os\.getrandom)$"
)
AMBIENT_ALLOWED: dict[str, str] = {
    "clock.py": "the one reader of time",
    "ids.py": "the one source of randomness",
}
AMBIENT_FOLDERS: dict[str, str] = {
    "testing/": "seeded randomness is what the simulator is made of; loopback servers and disks live in real time",
    "harness/sandbox/supervisor": "runs as a process of its own, outside of any clock that could be injected",
}

#: Calls that start or replace a process.
PROCESSES = re.compile(
    r"^(os\.(fork|forkpty|exec\w+|spawn\w+|posix_spawn\w*|system|popen)|asyncio\.create_subprocess_\w+|pty\.\w+)$"
)
PROCESSES_ALLOWED = (*SANDBOX, *TESTING, "framework/cli/demo", "framework/http/workers")


def calls(module: Module) -> Iterator[tuple[str, int]]:
    """Every dotted name that is called, or named to be called later, with its line."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node), node.lineno


def test_only_clock_and_ids_read_time_and_randomness() -> None:
    """What is not injected cannot be simulated: one call to `time.time` and a seed no longer means one history (T8)."""
    wrong = [
        f"{where(module, line)}: {name}"
        for module in modules().values()
        if module.inside not in AMBIENT_ALLOWED and not module.inside.startswith(tuple(AMBIENT_FOLDERS))
        for name, line in calls(module)
        if AMBIENT.match(name)
    ] + [
        f"{where(module, each.line)}: from {each.module}"
        for module in modules().values()
        if module.inside not in AMBIENT_ALLOWED and not module.inside.startswith(tuple(AMBIENT_FOLDERS))
        for each in module.imports
        if each.module.split(".")[0] in {"random", "secrets", "uuid"} or AMBIENT.match(each.module)
    ]

    assert not wrong, "take a Clock or Ids instead:\n" + "\n".join(wrong)


def test_only_sandboxes_start_processes() -> None:
    """What runs outside of this process is confined in one folder, where it can be bounded and killed (S13)."""
    wrong = [
        f"{where(module, line)}: {name}"
        for module in modules().values()
        if not module.inside.startswith(PROCESSES_ALLOWED)
        for name, line in calls(module)
        if PROCESSES.match(name)
    ]

    assert not wrong, "\n".join(wrong)


# --- pure files -----------------------------------------------------------------------------------------------------

PURE = (
    "runtime/records.py",
    "runtime/producer.py",
    "runtime/state.py",
    "runtime/fiber_state.py",
    "runtime/schedule_state.py",
    "runtime/waits.py",
    "runtime/record.py",
    "runtime/object_records.py",
    "runtime/connection_state.py",
    "runtime/sub_objects.py",
    "runtime/object_state.py",
    "runtime/files.py",
    "runtime/files_changes.py",
    "runtime/files_glob.py",
    "runtime/files_log.py",
    "runtime/files_overlay.py",
    "runtime/files_paths.py",
    "runtime/files_tree.py",
    "harness/asking.py",
    "harness/code_stubs.py",
    "harness/messages.py",
    "harness/records.py",
    "harness/conversation.py",
    "harness/projection.py",
    "harness/shown.py",
    "harness/shown_questions.py",
    "harness/program_names.py",
    "framework/http/problems.py",
    "framework/http/origin.py",
    "framework/http/snapshot.py",
    "harness/sniff.py",
    "harness/submission.py",
    "harness/recovery.py",
    "harness/context.py",
)

#: What a pure file cannot need. Standard library names that reach the world, and those of ours that do.
IMPURE = re.compile(
    r"^(asyncio|threading|concurrent|socket|subprocess|os|io|pathlib|shutil|tempfile|time|random|secrets|uuid|logging|sys"
    r"|sqlite3|cairn\.clock|cairn\.ids|cairn\.runtime\.(storage|log|instance|worker|fiber|lease|runner))(\.|$)"
)
IMPURE_NAMES = frozenset({"open", "print", "input", "exec", "eval", "globals", "__import__"})


@pytest.mark.parametrize("path", PURE)
def test_a_pure_file_has_no_async_no_clock_no_ids_and_no_io(path: str) -> None:
    """What decides is a function of its arguments: it can be enumerated (T4), replayed (S15) and trusted (S14)."""
    module = next((each for each in modules().values() if each.inside == path), None)
    if module is None:
        return  # not written yet; test_every_pure_file_exists says so once it has to be

    wrong = [f"{where(module, each.line)}: imports {each.module}" for each in module.imports if IMPURE.match(each.module)]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            wrong.append(f"{where(module, node.lineno)}: async")
        if isinstance(node, ast.Global | ast.Nonlocal):
            wrong.append(f"{where(module, node.lineno)}: global state")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_NAMES:
            wrong.append(f"{where(module, node.lineno)}: {node.func.id}()")

    assert not wrong, "\n".join(wrong)


def test_the_loop_holds_no_test_on_record_kinds() -> None:
    """The loop executes what `recovery.py` returns; a decision hidden in it would not be in the table (T4)."""
    module = modules().get("cairn.harness.loop")
    if module is None:
        return

    wrong = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"isinstance", "type"}:
            text = ast.unparse(node)
            if re.search(r"\b(r|rec|records|hr)\.[A-Z]", text):
                wrong.append(f"{where(module, node.lineno)}: {text}")
        if isinstance(node, ast.Match) and re.search(r"\brecord\b", ast.unparse(node.subject)):
            wrong.append(f"{where(module, node.lineno)}: match {ast.unparse(node.subject)}")

    assert not wrong, "\n".join(wrong)


# --- import time ----------------------------------------------------------------------------------------------------


def test_nothing_runs_at_import() -> None:
    """Module level holds definitions and constants: no call made for its effect, no loop, no open file."""
    wrong = []
    for module in modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                text = ast.unparse(node.value)
                wrong.append(f"{where(module, node.lineno)}: {text[:60]}")
            if isinstance(node, ast.For | ast.While | ast.With | ast.AsyncWith):
                wrong.append(f"{where(module, node.lineno)}: a {type(node).__name__.lower()} at module level")

    assert not wrong, "\n".join(wrong)


# --- size -----------------------------------------------------------------------------------------------------------

LINES_MAX = 400

#: Files above the line count at which one asks why, and the answer.
LONGER: dict[str, str] = {
    "runtime/records.py": "a vocabulary: one record after the other, and no code",
    "runtime/storage/sqlite.py": "the Store protocol, call by call, each a line or two",
}

FUNCTION_LINES_MAX = 50


def _function_lines(module: Module) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            document = node.body[0] if ast.get_docstring(node, clean=False) else None
            told = (document.end_lineno or 0) - document.lineno + 1 if document else 0
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1 - told


def test_a_long_module_says_why() -> None:
    """One noun per file: whoever has read only this file can be right about it. A longer one is on the list, explained."""
    lengths = {module.inside: module.source.count("\n") + 1 for module in modules().values()}
    long = {path: lines for path, lines in lengths.items() if lines > LINES_MAX}

    unexplained = {path: lines for path, lines in long.items() if path not in LONGER}
    stale = sorted(set(LONGER) - set(lengths))

    assert not unexplained, f"longer than {LINES_MAX} lines; split it, or say why in LONGER: {unexplained}"
    assert not stale, f"no such file; take it off the list: {stale}"


def test_a_function_fits_on_a_screen() -> None:
    """Fifty lines without the docstring; beyond that it does two things."""
    long = [
        f"{where(module, line)}: {name} has {lines} lines"
        for module in modules().values()
        for name, line, lines in _function_lines(module)
        if lines > FUNCTION_LINES_MAX
    ]

    assert not long, "\n".join(long)


def test_every_file_opens_with_what_it_is_for() -> None:
    """A reader learns a file's job and laws from its head. Empty package files have nothing to say."""
    silent = [
        f"src/cairn/{module.inside}"
        for module in modules().values()
        if module.source.strip() and not ast.get_docstring(module.tree)
    ]
    sql = [
        path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.sql") if not path.read_text().lstrip().startswith("--")
    ]

    assert not silent + sql, "\n".join(silent + sql)


# --- what is in the repository --------------------------------------------------------------------------------------

#: What no file may contain. Spelled apart, so that this file does not match itself.
FORBIDDEN: dict[str, re.Pattern[str]] = {
    "a machine's path": re.compile(r"(?<![\w.}])/" + r"(root/\w+|work|home/(?!user\b|me\b)[a-z]+|Users/[A-Za-z]+)(?![\w.-])"),
    "a registry host": re.compile(r"(pypi\.o" + r"rg|pythonhosted\.o" + r"rg|--(extra-)?index-" + r"url|--find-" + r"links)"),
    "a ticket of somebody's tracker": re.compile(r"(?i)(\.\./sha" + r"red\b|\bissues? #?\d+\b|\bco-authored-" + r"by\b)"),
    "work left for later": re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b"),
}


def tracked() -> list[Path]:
    """Every text file that is, or would be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:  # an unpacked source archive
        hidden = re.compile(r"^\.(?!ci$)|^__pycache__$")
        return [
            path
            for path in ROOT.rglob("*")
            if path.is_file() and not any(hidden.match(part) for part in path.relative_to(ROOT).parts[:-1])
        ]
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_tells_of_the_machine_or_the_way_it_was_made() -> None:
    """The repository reads the same wherever it is, and depends on no host a reader cannot choose."""
    wrong = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            continue
        name = path.relative_to(ROOT).as_posix()
        for number, text in enumerate(data.decode(errors="replace").splitlines(), 1):
            for what, pattern in FORBIDDEN.items():
                found = pattern.search(text)
                if found:
                    wrong.append(f"{name}:{number}: {what}: {found.group(0)}")

    assert not wrong, "\n".join(wrong[:50])


# --- promises -------------------------------------------------------------------------------------------------------

#: Promises about parts that do not exist yet. Taken off this list with the part.
NOT_YET: dict[str, str] = {
    "S13": "workspaces",
}

CITATION = re.compile(r"\b([SL])(\d{1,2})(?:[–-]\1?(\d{1,2}))?\b")


def cited(text: str) -> set[str]:
    """The promise ids in a text; `S1–S3` is three."""
    found = set()
    for letter, first, last in CITATION.findall(text):
        found |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def promised() -> list[str]:
    """The ids that `docs/promises.md` defines, in its order."""
    return re.findall(r"^\| \*\*([SL]\d+)", (ROOT / "docs" / "promises.md").read_text(), flags=re.MULTILINE)


def kind_of(path: Path) -> str:
    """The kind of a test is the folder it is in: a unit test and a kill storm prove different things."""
    parts = path.relative_to(ROOT / "tests").parts
    return parts[0] if len(parts) > 1 else "whole"


def citations() -> dict[str, dict[str, set[str]]]:
    """Promise → kind of test → the files that cite it."""
    found: dict[str, dict[str, set[str]]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.name in {"test_architecture.py", "conftest.py"} or kind_of(path) == "mutations":
            continue  # a mutation shows that a proof can fail; it is not one itself
        for promise in cited(path.read_text()):
            name = path.relative_to(ROOT / "tests").as_posix()
            found.setdefault(promise, {}).setdefault(kind_of(path), set()).add(name)
    return found


def test_every_promise_is_proved_by_two_tests_of_different_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    """A promise that one way of testing holds may be one that this way cannot see broken. Prints the table."""
    found = citations()
    ids = promised()
    assert len(ids) >= 22, "docs/promises.md lost its tables"

    rows = []
    missing = []
    for promise in ids:
        kinds = found.get(promise, {})
        files = sorted({name for names in kinds.values() for name in names})
        later = f"   not yet: {NOT_YET[promise]}" if promise in NOT_YET else ""
        rows.append(f"{promise:<4} {len(files):>2} files  {', '.join(sorted(kinds)) or '-'}{later}")
        if promise not in NOT_YET and len(kinds) < 2:
            missing.append(promise)
    with capsys.disabled():
        print("\n" + "\n".join(rows))

    assert not missing, f"cited by fewer than two kinds of tests: {', '.join(missing)}"
