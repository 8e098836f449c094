"""Counts injected faults: a test that is marked with its class says how many it injected.

    @pytest.mark.fault(4)
    def test_...(faults: Faults) -> None:
        ...
        faults.injected(300)

`--fault-totals` prints the table; `--fault-seed N` draws other faults, and a failure says which
command brings it back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.reliability.classes import CLASSES
from tests.reliability.totals import PROPERTY, Totals


class Faults:
    """What one test injects."""

    def __init__(self, number: int, rng_seed: int, node: pytest.Item):
        self.random = random.Random(f"{rng_seed}/{node.nodeid}")  # noqa: S311
        self._told = [number, 0]
        node.user_properties.append((PROPERTY, self._told))

    def injected(self, num: int = 1) -> None:
        """So many faults of the test's class were injected, and survived as they must."""
        self._told[1] += num


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """Counts what the test injects, and draws it."""
    mark = request.node.get_closest_marker("fault")
    if mark is None or mark.args[0] not in CLASSES:
        pytest.fail(f"mark the test with its class: fault(n), n one of {list(CLASSES)}")
    return Faults(mark.args[0], request.config.getoption("fault_seed"), request.node)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-seed", type=int, default=0, metavar="N", help="draws the faults")
    group.addoption("--fault-totals", action="store_true", help="print what was injected")
    group.addoption("--all-mutants", action="store_true", help="plant every bug, not a few of them")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Say which command brings a fault back."""
    report: pytest.TestReport = yield
    mark = item.get_closest_marker("fault")
    if mark is not None and report.failed:
        rng_seed = item.config.getoption("fault_seed")
        command = f"python -m pytest -m '' '{item.nodeid}' --fault-seed {rng_seed}"
        report.sections.append(("the same fault again", command))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table and the line, summed over all processes of the session."""
    if not config.getoption("fault_totals"):
        return
    totals = Totals()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            hung = outcome == "failed" and "Timeout" in str(report.longrepr)
            if report.when == "call" or outcome != "passed":
                totals.add(report.user_properties, passed=outcome == "passed", hung=hung)
    terminalreporter.section("faults injected")
    for row in totals.rows():
        terminalreporter.line(row)
    terminalreporter.line(totals.line())
