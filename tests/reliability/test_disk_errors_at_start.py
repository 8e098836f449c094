"""A disk that is full, over its quota or broken as a run starts: refused by name, or no matter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from leyline import EsperError
from tests.reliability.disk_runs import START, Ended, assert_whole_again
from tests.reliability.disk_runs import ends as ends
from tests.reliability.disk_trouble import REFUSALS, Disk, Stretch
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loop.test_loop_resume import NUM_EPOCHS
from tests.tolaria.plain_loops import one_thread as one_thread

RESUME: Final = 9
"""Operations of a resume until its journal is cut back."""
pytestmark = [pytest.mark.slow, pytest.mark.fault(5)]


def assert_refused_by_name(error: EsperError, disk: Disk, run_dir: Path) -> None:
    """It names a path of the run and what the system said."""
    codes = {operation.by.code for operation in disk.log if operation.by is not None}
    assert str(run_dir) in str(error)
    assert any(os.strerror(code) in str(error) for code in codes), str(error)


def test_a_run_that_cannot_be_made_is_refused_and_can_be_begun_again(
    tmp_path: Path, ends: Mapping[int, Ended], faults: Faults
) -> None:
    """Each operation before a new run's journal is open is refused, for once or for a while: the
    run is refused by path and reason, or goes on; then the same script begins it."""
    for first in range(1, START + 1):
        run_dir = tmp_path / str(first)
        disk = Disk(Stretch.drawn(faults.random, first, first, REFUSALS))
        try:
            with disk.in_use():
                assert Ended(run_dir, 1).is_as(ends[1])
        except EsperError as error:
            assert_refused_by_name(error, disk, run_dir)
        assert_whole_again(run_dir, ends[1], disk)
        faults.injected(disk.num_strikes)


def test_a_resume_that_is_refused_loses_nothing(
    tmp_path: Path, ends: Mapping[int, Ended], faults: Faults
) -> None:
    """Each operation before a resumed run's journal is cut back is refused, in each way: the
    resume is refused by path and reason, or goes on; the one after it ends as if nothing was."""
    Ended(tmp_path / "stopped", 3)
    for number in range(2 * RESUME):
        run_dir = shutil.copytree(tmp_path / "stopped", tmp_path / str(number))
        first = 1 + number // 2
        disk = Disk(Stretch.drawn(faults.random, first, first, REFUSALS))
        try:
            with disk.in_use():
                assert Ended(run_dir).is_as(ends[NUM_EPOCHS])
        except EsperError as error:
            assert_refused_by_name(error, disk, run_dir)
        assert_whole_again(run_dir, ends[NUM_EPOCHS], disk)
        faults.injected(disk.num_strikes)
