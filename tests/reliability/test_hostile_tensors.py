"""Hostile files of tensors in checkpoints whose digests fit: refused by name, nothing changed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from tests.reliability.hostile_runs import finished as finished
from tests.reliability.plugin import Faults
from tests.reliability.resealing import WORDS, Edit, Values, header, outcome, replaced, tensors
from tests.tolaria.plain_loops import one_thread as one_thread

FILES: Final = ("model.safetensors", "state.safetensors")
NUM_MANY: Final = 10**6


def negative(entries: Values, names: list[str]) -> None:
    start, end = entries[names[0]]["data_offsets"]
    entries[names[0]]["data_offsets"] = [start - 4, end - 4]


def overlapping(entries: Values, names: list[str]) -> None:
    entries[names[1]] = entries[names[0]]


def holed(entries: Values, names: list[str]) -> None:
    del entries[names[0]]


def too_long(entries: Values, names: list[str]) -> None:
    entries[names[-1]]["data_offsets"][1] += 1000


def overflowing(entries: Values, names: list[str]) -> None:
    entries[names[0]]["shape"] = [2**63, 2]


def giant(entries: Values, names: list[str]) -> None:
    entries[names[0]]["shape"] = [2**40]


def other_type(entries: Values, names: list[str]) -> None:
    entries[names[0]]["dtype"] = "F33"


def said_twice(entries: Values, names: list[str]) -> str:
    again = f"{json.dumps(names[0])}: {json.dumps(entries[names[1]])}"
    return f"{json.dumps(entries)[:-1]}, {again}}}"


def metadata(entries: Values, names: list[str]) -> None:
    entries["__metadata__"] = [1, {"a": None}]


def deep(entries: Values, names: list[str]) -> str:
    return f'{{"a": {"[" * 200_000}'


HEADERS: Final = (
    negative,
    overlapping,
    holed,
    too_long,
    overflowing,
    giant,
    other_type,
    said_twice,
    metadata,
    deep,
)


def many(entries: Values, names: list[str]) -> str:
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    more = ",".join(f'"{number}":{empty}' for number in range(NUM_MANY))
    return f"{json.dumps(entries)[:-1]}, {more}}}"


@pytest.mark.timeout(30)
@pytest.mark.fault(22)
@pytest.mark.parametrize("change", HEADERS)
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_header_is_refused(
    name: str, change: Callable[..., Any], finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """Offsets, shapes, types and texts that no file has: the checkpoint is named, and every byte of
    the run is as it was."""
    assert "cannot be read: Error while" in outcome(finished, tmp_path, header(name, change))
    faults.injected()


@pytest.mark.slow
@pytest.mark.fault(22)
@pytest.mark.parametrize("name", FILES)
def test_a_million_tensors_are_refused_before_they_are_made(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """Each would cost a kilobyte; a file has no more of them than state.json has places for."""
    found = outcome(finished, tmp_path, header(name, many))
    assert f"{name} holds 1000" in found
    assert "state.json names" in found
    faults.injected()


def named(checkpoint: Path) -> None:
    """A tensor with such a name, which the state of the model has a place for."""
    tensors(FILES[0], WORDS, torch.zeros(2))(checkpoint)
    place = json.dumps([WORDS, {"tensor": {"name": WORDS}}])
    start = '"state_dict": {"OrderedDict": ['
    replaced(r'"state_dict": \{"OrderedDict": \[', f"{start}{place},")(checkpoint)


def column(name: str, value: float, num: int = 1, dtype: torch.dtype = torch.int32) -> Edit:
    return tensors(
        FILES[1], f"esper.executor.table.columns.{name}", torch.full((num,), value, dtype=dtype)
    )


MOMENT: Final = "optimizer_states[0].state.0.exp_avg"
MISFITS: Final[dict[str, tuple[Edit, str]]] = {
    "name": (named, r"does not fit ConvNet.*Unexpected key"),
    "shape": (
        tensors(FILES[0], "conv.weight", torch.zeros(4, 1, 3, 5)),
        "size mismatch for conv.w",
    ),
    "description": (
        tensors(FILES[0], "conv.esper._extra_state", torch.zeros(3)),
        "the seeds at 'conv' is damaged",
    ),
    "alpha": (tensors(FILES[0], "conv.esper.0.alpha", torch.tensor(math.nan)), "has alpha.*nan"),
    "moment": (tensors(FILES[1], MOMENT, torch.zeros(3)), r"optimizer Adam .*exp_avg is \(3,\)"),
    "stage of a fraction": (
        column("stage", 0.5, dtype=torch.float32),
        "column 'stage' has float32",
    ),
    "stage 99": (column("stage", 99), r"the stages are \[99\]"),
    "stage -1": (column("stage", -1), r"the stages are \[-1\]"),
    "five stages": (column("stage", 0, num=5), r"column 'stage' has int32 \(5,\)"),
    "site 99": (column("site", 99), "a seed of site 99, and there are"),
    "blueprint 99": (column("blueprint", 99), "a seed of blueprint 99, and there are"),
    "transitions": (column("num_transitions", -(2**31)), "transitions is negative"),
    "history": (
        tensors(FILES[1], "esper.executor.table.history", torch.zeros(7, dtype=torch.uint8)),
        "is not what a run of this version writes",
    ),
    "random stream": (
        tensors(FILES[1], "esper.rng.torch", torch.zeros(3, dtype=torch.uint8)),
        "is not what a run of this version writes",
    ),
}


@pytest.mark.slow
@pytest.mark.fault(22)
@pytest.mark.parametrize("name", MISFITS)
def test_a_tensor_that_fits_nothing_is_refused(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """Of another shape, type or range than what it is loaded into: refused before the journal or
    anything else of the run is touched."""
    edit, refusal = MISFITS[name]
    assert re.search(refusal, outcome(finished, tmp_path, edit), re.DOTALL)
    faults.injected()
