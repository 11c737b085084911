"""The rules of `conftest.py`, proved by running pytest on small suites."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

SKIPS = """
import pytest
def test_a(): pytest.skip("no unicorn here")
@pytest.mark.xfail(reason="known")
def test_b(): assert False
"""


def run(folder: Path, source: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    tests = folder / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.read_text())
    (tests / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: s\n  system: s\naddopts = -ra --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:sybil", *options]
    inherited = {name: value for name, value in os.environ.items() if name != "CI" and "PYTEST" not in name}
    return subprocess.run(command, cwd=folder, env=inherited | env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_skip_is_shown_at_home_and_fails_in_ci(tmp_path: Path) -> None:
    """Goal: no promise is proved by a test that did not run. An expected failure stays one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "ci").mkdir()

    home = run(tmp_path / "home", SKIPS)
    ci = run(tmp_path / "ci", SKIPS, CI="true")

    assert home.returncode == 0
    assert "no unicorn here" in home.stdout
    assert ci.returncode == 1
    assert "in CI nothing may skip. Skipped: no unicorn here" in ci.stdout
    assert "1 failed, 1 xfailed" in ci.stdout


@pytest.mark.slow
def test_a_skipped_module_fails_in_ci(tmp_path: Path) -> None:
    """A missing package that skips a whole file is a skip as well."""
    done = run(tmp_path, "import pytest\npytest.importorskip('no_such_package')\n", CI="true")

    assert done.returncode != 0
    assert "in CI nothing may skip" in done.stdout


@pytest.mark.slow
def test_an_area_over_its_budget_fails_the_run_and_the_closing_line_stays_last(tmp_path: Path) -> None:
    """Goal: the suite cannot grow slow unnoticed. Method: a budget of zero minutes."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "over").mkdir()
    source = "import conftest\nconftest.BUDGET_MINUTES['ground'] = {}\ndef test_a(): pass\n"

    kept = run(tmp_path / "kept", source.format(1), "--budget")
    over = run(tmp_path / "over", source.format(0), "--budget")

    assert kept.returncode == 0
    assert over.returncode == 1
    assert "OVER BUDGET" in over.stdout
    assert over.stdout.rstrip().splitlines()[-1].startswith("=")
    assert "1 passed" in over.stdout.rstrip().splitlines()[-1]


@pytest.mark.slow
def test_a_system_test_is_slow_without_being_marked_so(tmp_path: Path) -> None:
    """`make check` must not start processes because somebody forgot a second marker."""
    source = "import pytest\n@pytest.mark.system\ndef test_a(): pass\ndef test_b(): pass\n"

    done = run(tmp_path, source, "-m", "not slow")

    assert "1 passed, 1 deselected" in done.stdout
