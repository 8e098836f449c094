"""The count of faults: only what was survived, over all processes, and short classes apart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.reliability.classes import CLASSES
from tests.reliability.totals import PROPERTY, Totals

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = """
import pytest

@pytest.mark.fault(17)
@pytest.mark.parametrize("number", range(5))
def test_survived(number, faults):
    faults.injected(50)

@pytest.mark.fault(4)
def test_broken(faults):
    faults.injected(20_000)
    print("drew", faults.random.random())
    assert False

@pytest.mark.fault(7)
def test_hangs(faults):
    faults.injected(1)
    pytest.fail("Timeout (>1.0s) from pytest-timeout.")

@pytest.mark.fault(8)
def test_one_only(faults):
    faults.injected()

@pytest.mark.fault(99)
def test_of_no_class(faults):
    pass
"""


def told(number: int, num: int) -> list[tuple[str, list[int]]]:
    return [("another", [1]), (PROPERTY, [number, num])]


def test_only_whole_classes_are_counted() -> None:
    """A class short of its least adds nothing, mutated messages are counted apart, and a fault of
    a test that failed is none."""
    totals = Totals()
    totals.add(told(17, 150), passed=True, hung=False)
    assert totals.reached == []
    totals.add(told(17, 60), passed=True, hung=False)
    totals.add(told(18, 200_000), passed=True, hung=False)
    totals.add(told(4, 99_999), passed=False, hung=False)
    totals.add(told(6, 99), passed=True, hung=False)
    assert totals.reached == [17, 18]
    assert totals.num_faults == 210
    assert totals.num_messages == 200_000
    assert totals.line().startswith("2 of 22 classes, 210 faults")
    assert "1 undetected corruptions" in totals.line()
    assert len(list(totals.rows())) == len(CLASSES) == 22


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a session over two processes prints."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "test_faults.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = fault(n): a class\n")
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "tests.reliability.plugin"]
    done = subprocess.run(
        [*command, "--fault-totals", "--fault-seed", "7", "-p", "no:cacheprovider"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_a_session_is_summed_over_its_processes(session: str) -> None:
    """Each class, what it is short of, and all in one line; what failed is told by its kind."""
    assert re.search(r" 17 two runs, one directory +250$", session, re.M)
    assert re.search(r"  8 hostile answers of a server +1  short of 12$", session, re.M)
    assert re.search(r"  4 damaged, cut or swapped files +0  short of 10,000$", session, re.M)
    assert (
        "1 of 22 classes, 250 faults (goal 15,000), 0 mutated messages (goal 200,000), "
        "0 unexplained differences, 1 undetected corruptions, 0 ledger errors, 1 hangs"
    ) in session


def test_a_failure_says_which_command_brings_it_back(session: str) -> None:
    """With the seed that it was drawn by; a class that there is not is refused by name."""
    assert "python -m pytest -m '' 'test_faults.py::test_broken' --fault-seed 7" in session
    assert "mark the test with its class: fault(n)" in session
