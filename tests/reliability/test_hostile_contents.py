"""Hostile state.json and manifest.json in checkpoints whose digests fit: refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.reliability.hostile_runs import finished as finished
from tests.reliability.plugin import Faults
from tests.reliability.resealing import (
    WORDS,
    Edit,
    Values,
    described,
    outcome,
    replaced,
    said,
)
from tests.tolaria.plain_loops import one_thread as one_thread

READ: Final = r"step-\d+ cannot be read: "
NOT_A_STATE: Final = "the checkpoint's state of growth is not what a run of this version writes"
STREAM: Final = "esper.rng.torch"

UNREADABLE: Final = {
    "10,000 digits": "1" * 10_000,
    "days beyond all time": '{"timedelta": [1e308, 0, 0]}',
    "days that are none": '{"timedelta": [NaN]}',
    "foreign factory": '{"defaultdict": ["eval", []]}',
    "unknown tag": '{"reduce": ["posix.system", "true"]}',
    "two tags": '{"int": "1", "float": "1"}',
    "no tag": "{}",
    "missing tensor": '{"tensor": {"name": "not there"}}',
    "cycle": f'{{"tensor": {{"name": {{"tensor": {{"name": "{STREAM}"}}}}}}}}',
    "axes twice": f'{{"tensor": {{"name": "{STREAM}", "order": [7, 7]}}}}',
    "giant shape": f'{{"tensor": {{"name": "{STREAM}", "dtype": "int8", "shape": [{2**62}, 4]}}}}',
    "no type": '{"dtype": "__builtins__"}',
    "a module for a type": '{"dtype": "onnx"}',
    "no key": '{"dict": [[[1], 1]]}',
    "no base64": '{"bytes": "***"}',
    "deep": "[" * 900 + "]" * 900,
    "deeper": "[" * 50_000 + "]" * 50_000,
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_state_that_cannot_be_told_is_refused(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """What no state is packed as: the checkpoint is named, nothing imported, nothing changed."""
    assert re.search(READ, outcome(finished, tmp_path, said("epoch", UNREADABLE[name])))
    faults.injected()


NO_COUNT: Final = {
    "10**400": "1" + "0" * 400,
    "8,300 digits": '{"int": "0x' + "f" * 8300 + '"}',
    "2**63": str(2**63),
    "NaN": "NaN",
    "infinity": "-Infinity",
    "infinity of many digits": '{"float": "' + "1" * 100_000 + '"}',
    "negative": "-1",
    "true": "true",
    "null": "null",
    "text": json.dumps(WORDS),
    "dict": '{"dict": []}',
    "tensor": f'{{"tensor": {{"name": "{STREAM}"}}}}',
}
COUNTS: Final = ("epoch", "step", "journal_position", "schema_id")
PARTS: Final = (
    *("controller", "executor", "breakers", "groups", "rates", "watch", "recovery", "sites"),
    *("example", "flops", "metrics", "surroundings"),
)
OTHER: Final = [
    *((part, value) for part in COUNTS for value in NO_COUNT),
    *((part, value) for part in PARTS for value in ("text", "null", "2**63")),
]
FAST: Final = (("epoch", "10**400"), ("journal_position", "text"))


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("part", "value"),
    [
        pytest.param(*case, marks=() if case in FAST else pytest.mark.slow, id="-".join(case))
        for case in OTHER
    ],
)
def test_a_state_of_other_values_is_refused(
    part: str, value: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """Where the state of growth has no count, list or dict as every run writes it, it is refused
    before the journal is cut back."""
    refusal = outcome(finished, tmp_path, said(part, NO_COUNT[value]))
    assert refusal.startswith(NOT_A_STATE)
    assert part in refusal
    assert len(refusal) < 1000
    faults.injected()


WITHIN: Final[dict[str, tuple[Edit, str]]] = {
    "later format": (said("format", "99"), "of growth is of format 99"),
    "numpy's stream": (replaced(r'"MT19937", \[', '"MT19937", [-1, '), "is not what a run"),
    "numpy's kind": (replaced('"MT19937"', '"PCG64"'), "is not what a run"),
    "unknown blueprint": (
        replaced(r'\["blueprints", \["low_rank"', '["blueprints", ["os.system"'),
        "'os.system' is not registered",
    ),
    "two names": (replaced(r'\["names", \[', '["names", ["a", '), "column 'stage'|is not what a"),
    "rate in words": (replaced(r'\["lr", [\d.e-]+\]', '["lr", "x"]'), "lr is 'x'"),
    "no rate": (replaced(r'\["lr", [\d.e-]+\]', '["lr", null]'), "lr is None"),
    "no betas": (replaced(r'\["betas", \{"tuple"[^}]+\}', '["betas", 3'), "betas is 3"),
    "negative ramp": (replaced(r'\["ramp_steps", \d+\]', '["ramp_steps", -1]'), "ramp_steps"),
    "no optimizer": (replaced(r'"optimizer_states", \[', '"optimizer_states", [], "", ['), READ),
    "a type to import": (replaced('"torch.float32"', '"torch.onnx"'), "'torch.onnx' as its type"),
}


@pytest.mark.slow
@pytest.mark.fault(22)
@pytest.mark.parametrize("name", WITHIN)
def test_hostile_values_within_the_state_are_refused(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """As above, of streams, optimizers and tables."""
    edit, refusal = WITHIN[name]
    assert re.search(refusal, outcome(finished, tmp_path, edit))
    faults.injected()


@pytest.mark.fault(22)
def test_the_second_of_two_alike_is_what_a_state_says(
    finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """A key twice, the first of them hostile: the last counts, in every reader alike."""
    twice = replaced(r"^\{", '{"state": {"reduce": []}, ')
    assert outcome(finished, tmp_path, twice) == ""
    faults.injected()


# --- what is said of seeds, in the model and in the manifest ------------------------------------


def _sizes(number: int, size: int) -> Callable[[Values], None]:
    return lambda seed: seed["shape"]["sizes"].__setitem__(number, size)


def _with(**values: Any) -> Callable[[Values], None]:
    return lambda seed: seed.update(values)


SEEDS: Final[dict[str, tuple[Callable[[Values], None], str]]] = {
    "a function": (_with(blueprint="os.system"), "'os.system' is not registered"),
    "a path": (_with(blueprint="../../x"), "'../../x' is not registered"),
    "4 KiB": (_with(blueprint="x" * 4096), "is not registered"),
    "no name": (_with(blueprint=""), "blueprint '' is not registered"),
    "an escape": (_with(blueprint=WORDS), r"\\x1b\[2J.* is not registered"),
    "2**62 channels": (_sizes(1, 2**62), "'conv' is damaged: 'sizes'"),
    "-4 channels": (_sizes(1, -4), "'conv' is damaged: 'sizes'"),
    "10**9 chunks": (_with(chunk=[0, 10**9]), "is for 4000000000 channels"),
    "another site": (_with(seed="nowhere/0"), "carries seeds that this run has not grown"),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", SEEDS)
def test_a_hostile_seed_is_refused(
    name: str, finished: Path, tmp_path: Path, faults: Faults
) -> None:
    """A blueprint is a name in the register and no more; sizes take no memory before they fit."""
    change, refusal = SEEDS[name]
    assert re.search(refusal, outcome(finished, tmp_path, described(change)))
    faults.injected()
