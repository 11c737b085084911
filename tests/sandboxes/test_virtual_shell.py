"""The virtual shell by itself: what lasts, what is lost with a worker, and what a script cannot do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import pytest
from tests.sandboxes.virtual_desk import VirtualDesk, desks
from tests.workspace.desk import copy_of

from cairn.errors import SandboxError, ToolError, UsageError
from cairn.harness.sandbox.virtual import virtual
from cairn.harness.sandbox.virtual_host import CommandHost
from cairn.harness.sandbox.virtual_pool import ShellPool, shared_pool
from cairn.runtime.files import Quota

pytestmark = [pytest.mark.slow]

#: Scripts that end the library's process by overflowing its stack, though all its limits are set.
DEADLY = {
    "eval in itself": 'x=\'eval "$x"\'; eval "$x"',
    "builtin eval in itself": 'x=\'builtin eval "$x"\'; eval "$x"',
    "command eval in itself": 'x=\'command eval "$x"\'; eval "$x"',
    "time eval in itself": 'x=\'time eval "$x"\'; eval "$x"',
    "jq's recursion": "jq -n 'def f(x): f(x|x); f(1)'",
    "jq's parser": "jq -n '" + "[" * 50_000 + "'",
    "bc's parser": "echo '" + "(" * 50_000 + "1' | bc",
    "test's parser": "test " + "\\( " * 20_000 + "1" + " \\)" * 20_000,
    "find's parser": "find . " + "\\( " * 20_000 + "-name x" + " \\)" * 20_000,
}


def test_directory_variables_functions_and_aliases_last_over_a_restart() -> None:
    """X2, S13: the shell is where it was, in another worker, after another owner has folded the log."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            await desk.run(
                "mkdir -p a/b; cd a/b; export E=exported; V='two words'; L=(1 2 3); declare -A M=([k]=v); f() { echo f$1; }"
            )
            await desk.restart()
            shared_pool().close()

            code, text = await desk.run('pwd; echo $E "$V" ${L[1]} ${M[k]}; f 1; printenv E; pwd > where; cat where')
            assert (code, text) == (0, "/workspace/a/b\nexported two words 2 v\nf1\nexported\n/workspace/a/b\n")
            assert desk.sandbox.cwd == "/workspace/a/b"
            assert desk.tree() == {"/a": "directory", "/a/b": "directory", "/a/b/where": "file"}

    asyncio.run(main())


def test_a_shell_that_did_not_change_is_not_written_again() -> None:
    """F8: what a command leaves as it was costs nothing in the log."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            await desk.run("echo 1; ls; false")
            assert desk.remembered.value is None
            await desk.run("cd /tmp; A=1")
            before = desk.remembered.value
            await desk.run("echo $A; true | cat; (cd /workspace; A=2)")
            assert desk.remembered.value is before

    asyncio.run(main())


def test_a_command_with_its_own_directory_or_variables_leaves_the_shell_alone() -> None:
    """What the tools run beside the model's commands does not move it."""

    async def main() -> None:
        async with VirtualDesk(seed={"d/x": "1"}) as desk:
            assert await desk.run("pwd; A=1; cd /", cwd="d") == (0, "/workspace/d\n")
            assert await desk.run("echo $B; B=3", env={"B": "2"}) == (0, "2\n")
            assert await desk.run('pwd; echo "<$A$B>"') == (0, "/workspace\n<>\n")

    asyncio.run(main())


@pytest.mark.parametrize("name", DEADLY)
def test_a_script_that_ends_its_worker_loses_itself_and_nothing_else(name: str) -> None:
    """X2, F4: the error says what happened; files and shell are as before, and the next command runs."""

    async def main() -> None:
        async with VirtualDesk(seed={"kept": "1"}) as desk:
            await desk.run("cd /tmp; A=before")
            try:
                await desk.sandbox.exec(f"echo lost > /workspace/lost; cd /workspace; A=after; {DEADLY[name]}")
                was_lost = False
            except SandboxError as error:
                was_lost = "Nothing it did was kept" in str(error)
                assert was_lost, error
            after = await desk.run("pwd; echo $A")
            assert after == ((0, "/tmp\nbefore\n") if was_lost else (0, "/workspace\nafter\n"))
            assert ("/lost" in desk.tree()) == (not was_lost)

    asyncio.run(main())


def test_the_inputs_named_as_deadly_are_deadly_indeed() -> None:
    """The tests above see real deaths: at least the recursion of eval ends a worker by a signal."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            with pytest.raises(SandboxError, match="SIGSEGV"):
                await desk.sandbox.exec(DEADLY["eval in itself"])

    asyncio.run(main())


def test_a_timeout_keeps_the_output_and_nothing_else() -> None:
    """S1: files and shell are as before; a worker that is busy is not waited for."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            for script in (
                "echo begun; echo 1 > f; cd /tmp; sleep 60",
                "echo begun; echo 1 > f; while :; do sleep 0.01; done & wait",
            ):
                result = await desk.sandbox.exec(script, timeout_seconds=0.7)
                assert (result.timed_out, result.exit_code, result.output) == (True, 124, b"begun\n")
            assert desk.tree() == {}
            assert await desk.run("pwd") == (0, "/workspace\n")

    asyncio.run(main())


def test_cancelling_a_command_ends_its_worker() -> None:
    """F3: nothing of it is kept, and nothing of it goes on."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            seen = asyncio.Event()
            running = asyncio.ensure_future(desk.sandbox.exec("echo 1 > f; echo on; sleep 60", on_output=lambda _: seen.set()))
            await seen.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert shared_pool().processes == 0
            assert desk.tree() == {}
            assert await desk.run("ls") == (0, "")

    asyncio.run(main())


def test_a_script_reaches_nothing_of_this_machine() -> None:
    """X2: no file, no variable, no program, no network, not even by the interpreter that comes with the shell."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            os.environ["CAIRN_TEST_SECRET"] = "kept-outside"
            try:
                _, text = await desk.run(
                    "printenv; cat /proc/self/environ /proc/1/environ; cat /etc/hostname /etc/shadow; ls / /home;"
                    "python3 -c 'import os; print(os.environ, os.listdir(\"/\"))'; curl -s http://127.0.0.1/; wget http://1.1.1.1;"
                    f"cat {__file__}; sqlite3 {__file__} .tables; echo x > /etc/passwd; exec 3<>/dev/tcp/127.0.0.1/80"
                )
            finally:
                del os.environ["CAIRN_TEST_SECRET"]
            assert "kept-outside" not in text
            assert os.uname().nodename not in text
            assert "def test_a_script_reaches" not in text
            assert set(desk.tree()) <= {"/.tmp"}, "nothing but where commands may put what they need for a moment"

    asyncio.run(main())


def test_files_outside_the_workspace_are_refused_and_links_do_not_lead_out() -> None:
    """X1: what cannot last cannot be written, in words; a link to it cannot be made."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            _code, text = await desk.run(
                "echo x > /opt.txt; ln -s /etc/passwd l; ln -s ../../../etc/passwd m; cat m; mkdir /etc/me"
            )
            assert text.count("Read-only file system") == 2
            assert "/workspace or /tmp" in text
            assert desk.tree() == {"/m": "link"}
            with pytest.raises(FileNotFoundError):
                await desk.sandbox.read("m")
            for path in ("/etc/passwd", "../etc/passwd", "/workspace/../etc/passwd"):
                with pytest.raises(FileNotFoundError):
                    await desk.sandbox.read(path)
                with pytest.raises(PermissionError):
                    await desk.sandbox.write(path, b"")

    asyncio.run(main())


def test_tmp_lasts_and_is_in_the_workspace() -> None:
    """A model that leaves a file in /tmp finds it in its next command."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            await desk.run("ls /tmp; echo t > /tmp/t; f=$(mktemp); echo m > $f; rm $f")
            await desk.restart()
            assert await desk.run("cat /tmp/t; ls /tmp") == (0, "t\nt\n")
            assert await desk.sandbox.read("/tmp/t") == b"t\n"
            assert desk.tree() == {"/.tmp": "directory", "/.tmp/t": "file"}

    asyncio.run(main())


def test_moves_swaps_and_replacements_come_out_as_they_are_in_the_shell() -> None:
    """Whatever was exchanged with whatever, the workspace is what the shell shows."""
    scripts = [
        "mv a z; mv d a; mv z d; echo more >> a/x",
        "mv d/sub .; rm -r d; mkdir d; mv sub d/other; touch d/sub",
        "mv d e; mv e/sub e/under; rm e/x; echo new > e/x; chmod 600 e/x; mv e d2",
        "cp -r d copy; rm -r d; mv copy d; ln -s d/x link; mv link d/",
        "rm a; mkdir a; mv d a/d; mv a/d/sub d; echo 1 > d/y; mv a/d/x a/x; rmdir a/d",
        "echo a > n; mv n a; mv a d/x; mv d/x d/x2; mv d/x2 a; chmod 755 a",
    ]

    async def main() -> None:
        for script in scripts:
            seed = {"a": "a\n", "d/x": "x\n", "d/sub/deep": "deep\n", "d/sub/more/y": "y\n"}
            async with VirtualDesk(seed=seed) as desk:
                _code, text = await desk.run(f"{script}; find . | sort; find . -type f | sort | xargs cat")
                assert await desk.run("find . | sort; find . -type f | sort | xargs cat") == (0, text), script
                shown = {line[1:] for line in text.splitlines() if line.startswith("./")}
                assert shown == set(desk.tree()), script
                before = await copy_of(desk.files)
                await desk.restart()
                assert await copy_of(desk.files) == before

    asyncio.run(main())


def test_a_command_that_touches_one_of_ten_thousand_files_costs_what_it_touches() -> None:
    """O(1): questions to the host, bytes in the log and files in memory do not grow with what is there."""
    asked: list[int] = []

    class Counting(CommandHost):
        def __del__(self) -> None:
            asked.append(self.asked)

    async def cost(count: int) -> tuple[int, int, int]:
        seed = {f"d{n % 100}/f{n}": f"{n}\n" for n in range(count)}
        async with VirtualDesk(seed=seed) as desk:
            (before,) = [instance async for instance in _instances(desk)]
            host = None
            made: list[CommandHost] = []
            original = CommandHost.answer

            async def counted(self: CommandHost, *args: Any) -> Any:
                if self not in made:
                    made.append(self)
                return await original(self, *args)

            CommandHost.answer = counted  # type: ignore[method-assign]
            try:
                await desk.run("cd d7; sed -i s/7/seven/ f7; cat f7; echo new > n; mv f107 g; rm f207")
            finally:
                CommandHost.answer = original  # type: ignore[method-assign]
            (host,) = made
            rows = await desk.desk.store.read(desk.desk.instance.n, before)
            return host.asked, sum(len(row.batch.records) for row in rows), len(rows)

    async def _instances(desk: VirtualDesk) -> Any:
        yield desk.desk.instance.head

    async def main() -> None:
        few, many = await cost(1_000), await cost(10_000)
        assert few[0] == many[0] < 20
        assert abs(few[1] - many[1]) < 40
        assert few[2] == many[2]

    asyncio.run(main())


def test_what_exceeds_the_quota_is_refused_whole_and_said() -> None:
    """A command that writes more than there is room for leaves nothing, and its error says how much there is."""

    async def main() -> None:
        async with VirtualDesk(quota=Quota(bytes=100_000)) as desk:
            desk.files.quota = Quota(bytes=100_000)
            await desk.run("echo small > small")
            with pytest.raises(SandboxError, match="quota of 100,000"):
                await desk.sandbox.exec("echo more > more; for i in 1 2 3; do head -c 60000 /dev/zero > f$i; done")
            assert desk.tree() == {"/small": "file"}

    asyncio.run(main())


def test_a_long_output_is_a_file_that_can_be_paged() -> None:
    """P27: the end is in the result, the whole in the workspace; only the last sixteen are kept."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            for _ in range(18):
                result = await desk.sandbox.exec("seq 3000")
            assert result.full_output == "/workspace/.tmp/output/18.log"
            assert await desk.sandbox.read(result.full_output) == b"".join(b"%d\n" % n for n in range(1, 3001))
            kept = [path for path in desk.tree() if path.startswith("/.tmp/output/")]
            assert len(kept) == 16
            assert "/.tmp/output/1.log" not in kept

    asyncio.run(main())


def greet(name: str, *, times: int = 1, loud: bool = False, stdin: str = "") -> str:
    if name == "nobody":
        raise ToolError("nobody is there")
    return f"hello {name}{'!' if loud else ''}{stdin}\n" * times


def test_commands_in_python_run_in_the_host_with_declared_arguments() -> None:
    """Text is converted by annotation, mistakes are told with the usage, and pipes work both ways."""

    async def add(left: int, right: int) -> str:
        return f"{left + right}\n"

    async def main() -> None:
        async with VirtualDesk(commands={"greet": greet, "add": add, "fail": lambda: 7}) as desk:
            assert await desk.run("greet you --times 2 --loud | tr a-z A-Z") == (0, "HELLO YOU!\nHELLO YOU!\n")
            assert await desk.run("printf ' there' | greet you > f; cat f; add 2 3") == (0, "hello you there\n5\n")
            assert await desk.run("fail") == (7, "")
            assert await desk.run("greet nobody") == (1, "greet: nobody is there\n")
            usage = "usage: greet NAME [--times VALUE] [--loud]\n"
            assert await desk.run("greet") == (2, "greet: missing name\n" + usage)
            assert await desk.run("greet a --times x") == (2, "greet: times is 'x', which is not int\n" + usage)
            assert await desk.run("greet a b") == (2, "greet: unexpected argument 'b'\n" + usage)
            assert (await desk.run("greet a --nope"))[0] == 2
            await desk.run("A=1; cd /tmp")
            await desk.open(commands={})
            assert await desk.run("pwd; echo $A; greet a 2>/dev/null; echo $?") == (0, "/tmp\n1\n127\n")

    asyncio.run(main())
    with pytest.raises(UsageError, match="parameter 'x' is"):
        virtual(commands={"bad": _takes_bytes})


def _takes_bytes(x: bytes) -> None:
    """Not something a command line can give."""


def test_a_hundred_agents_share_a_few_workers() -> None:
    """F8: each gets its turn in order; nobody sees another's files or variables; afterwards only the warm ones are left."""

    async def main() -> None:
        ended: list[int] = []
        async with desks(100) as many:
            pool = shared_pool()

            async def work(number: int) -> None:
                for turn in range(3):
                    code, text = await many[number].run(f"N=${{N:-{number}}}; echo {turn} >> log; echo $N; wc -l < log; ls")
                    assert (code, text) == (0, f"{number}\n{turn + 1}\nlog\n")
                    ended.append(turn)
                    assert pool.processes <= pool._workers_max

            await asyncio.gather(*(work(number) for number in range(100)))
            assert Counter(ended) == {0: 100, 1: 100, 2: 100}
            assert ended.index(2) > 100, "the first to end its work was served before others had begun"
            assert pool.processes <= 2

    asyncio.run(main())


def test_a_worker_serves_one_tenant() -> None:
    """X11: another tenant's command runs in another process, also when all are taken."""

    async def main() -> None:
        pool = ShellPool(workers_max=1)
        async with VirtualDesk(pool=pool, tenant="one") as one, VirtualDesk(pool=pool, tenant="two") as two:
            await one.run("true")
            (first,) = pool.pids
            await one.run("true")
            assert pool.pids == [first]
            await two.run("true")
            (second,) = pool.pids
            assert second != first
            with pytest.raises(ProcessLookupError):
                _wait_gone(first)
        pool.close()

    asyncio.run(main())


def _wait_gone(pid: int) -> None:
    """Raises ProcessLookupError once the process is gone."""
    for _ in range(1_000):
        os.kill(pid, 0)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


def test_an_idle_agent_has_no_process() -> None:
    """Nothing runs before the first command, and what is warm is given up."""

    async def main() -> None:
        pool = ShellPool()
        async with VirtualDesk(pool=pool) as desk:
            await desk.sandbox.write("f", b"1")
            assert await desk.sandbox.read("f") == b"1"
            assert pool.processes == 0
            await desk.run("cat f")
            assert pool.processes == 1
            pool.close()
            assert pool.processes == 0

    asyncio.run(main())


@pytest.mark.system
def test_a_worker_ends_with_its_host() -> None:
    """X2: a host that is killed leaves no worker behind, not even one in an endless loop."""
    script = (
        "import asyncio, sys\n"
        "from tests.sandboxes.virtual_desk import VirtualDesk\n"
        "from cairn.harness.sandbox.virtual_pool import shared_pool\n"
        "async def main():\n"
        "    async with VirtualDesk() as desk:\n"
        "        await desk.run('true'); print(shared_pool().pids[0], flush=True)\n"
        "        await desk.run('while :; do :; done & sleep 600')\n"
        "asyncio.run(main())\n"
    )

    async def main() -> None:
        import sys

        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        worker = int(await process.stdout.readline())
        os.kill(worker, 0)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async with asyncio.timeout(5):
            while True:
                try:
                    os.kill(worker, 0)
                except ProcessLookupError:
                    return
                if _is_zombie(worker):
                    return
                await asyncio.sleep(0.01)

    asyncio.run(main())


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"Z"
