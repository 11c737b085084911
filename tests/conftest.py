"""What holds for every test: markers, repeatable randomness, no silent skips in CI, and a time budget per area.

Laws.
- `system` implies `slow`, and system tests run one after the other (they measure processes, not each other).
- Under CI=true a skipped test is a failed test: a machine that cannot run something says so. `xfail` stays.
- Each test belongs to one area by its path; `--budget` (used by `make test`) fails the run when an area costs more
  than it may. The budget is what keeps the suite runnable in years; raising it is a decision, not a repair.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent

#: Minutes of wall time an area may take on two cores.
BUDGET_MINUTES: dict[str, float] = {"installs": 6, "http": 8, "workspace": 8, "runtime": 7, "programs": 5, "ground": 7}
#: How the paths of an area's tests begin; the first area that fits has the test.
AREA_PATHS: dict[str, tuple[str, ...]] = {
    "installs": ("installs/",),
    "http": (
        "http/",
        "npm/",
        "browser/",
        "security/",
        "framework/test_chat",
        "framework/test_client",
        "framework/test_dev",
        "framework/test_reload",
        "harness/test_merging",
        "harness/test_projection",
        "mutations/test_http",
        "runtime/storage/test_deleting",
        "runtime/storage/test_whole_logs",
        "runtime/test_whole_logs",
        "simulation/test_readers",
        "system/test_dev",
    ),
    "workspace": (
        "workspace/",
        "sandboxes/",
        "skills/",
        "mutations/test_workspace",
        "mutations/test_sandbox",
        "mutations/test_virtual",
    ),
    "programs": ("programs/", "mutations/test_program"),
    "runtime": (
        "objects/",
        "harnesses/",
        "mutations/test_object",
        "mutations/test_answer",
        "runtime/test_managing",
        "runtime/test_schedule",
        "runtime/test_steps",
        "runtime/test_together",
        "runtime/test_waits",
        "framework/test_schedules",
        "crash/test_platform",
        "simulation/test_platform",
        "system/test_platform",
    ),
}
DEFAULT_AREA = "ground"

#: Seconds; a test that is longer belongs behind `@pytest.mark.slow`. Reported, not enforced: machines differ.
UNMARKED_SECONDS = 2.0

IN_CI = os.environ.get("CI") == "true"

# No deadline: a slow machine is not a defect. The failing example is printed as a line that repeats it.
settings.register_profile("cairn", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("cairn")


def area_of(path: Path) -> str:
    """The area a test file's time is counted for."""
    inside = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return next((area for area, paths in AREA_PATHS.items() if inside.startswith(paths)), DEFAULT_AREA)


# --- selection ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("system"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("system"))


# --- skips ----------------------------------------------------------------------------------------------------------


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: skipped, and in CI nothing may skip. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        _refuse_skip(report)
    return report


# --- the environment of a test --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the store or the keys of the person who runs it."""
    for name in ("CAIRN_STORE", "CAIRN_DEBUG", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield


# --- what is printed ------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--budget", action="store_true", help="fail when an area of tests exceeds its time budget")


def pytest_report_header(config: pytest.Config) -> list[str]:
    knobs = {name: value for name, value in sorted(os.environ.items()) if name.startswith("CAIRN_TEST_")}
    shown = " ".join(f"{name}={value}" for name, value in knobs.items()) or "none (the sizes of CI)"
    return [
        f"cairn: python {sys.version.split()[0]}, skips {'fail' if IN_CI else 'are shown'}, CAIRN_TEST_*: {shown}",
        "cairn: a failing random test prints its seed; hypothesis prints the line that repeats its example",
    ]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group: of pytest-xdist, which the runs of mutations do not load")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(AreaTimes(config), "cairn-area-times")


class AreaTimes:
    """Adds up what each area cost, prints it before pytest's closing line, and holds it to its budget."""

    def __init__(self, config: pytest.Config) -> None:
        workers = config.getoption("numprocesses", None)
        self._workers = workers if isinstance(workers, int) and workers > 0 else 1
        self._enforced = bool(config.getoption("--budget"))
        self._root = config.rootpath
        self._seconds: dict[str, float] = defaultdict(float)
        self._tests: dict[str, set[str]] = defaultdict(set)
        self._unmarked: list[tuple[float, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        nodeid = report.nodeid.partition("@")[0]
        area = area_of(self._root / nodeid.partition("::")[0])
        self._seconds[area] += report.duration
        self._tests[area].add(nodeid)
        if report.when == "call" and report.duration > UNMARKED_SECONDS and "slow" not in report.keywords:
            self._unmarked.append((report.duration, nodeid))

    def _over(self) -> list[str]:
        return [area for area in self._seconds if self._seconds[area] / self._workers > BUDGET_MINUTES[area] * 60]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._enforced and self._over() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._enforced and not self._unmarked:
            return
        write = terminalreporter.write_line
        terminalreporter.section("time per area")
        write(f"{'area':<12} {'tests':>6} {'test s':>8} {'wall s':>8} {'budget s':>9}")
        for area, minutes in BUDGET_MINUTES.items():
            seconds = self._seconds.get(area, 0.0)
            over = "   OVER BUDGET: make its tests cheaper" if area in self._over() else ""
            wall = seconds / self._workers
            write(f"{area:<12} {len(self._tests[area]):>6} {seconds:>8.1f} {wall:>8.1f} {minutes * 60:>9.0f}{over}")
        for seconds, nodeid in sorted(self._unmarked, reverse=True):
            write(f"not marked slow, took {seconds:.1f} s: {nodeid}")
