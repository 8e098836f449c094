"""The commented config: every setting with its meaning and default, from the code's own words."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from tolaria.commands.spec import TrainSpec
from tolaria.config import EsperConfig

_WIDTH: Final = 88
_HEADER: Final = (
    "What `esper train esper.toml` trains, and how it grows. `python train.py` reads [esper] "
    "alone. A line that begins with #name holds a default or, where there is none, ends in '# for "
    "example'. Take the first # away to set it. `esper config show esper.toml` prints what counts "
    "in the end."
)
_STATED: Final = {"model": "train:Model", "data": "train:Data", "epochs": 20, "threads": 1}
"""What the file sets, to go with the script beside it."""
_EXAMPLES: Final[Mapping[str, Any]] = {
    "data_dir": "data",
    "max_sites": 16,
    "param_budget": 100_000,
    "telemetry_bytes_per_s": 1_000_000,
    "metrics_port": 9464,
    "run_dir": "runs/first",
    "num_epochs": 20,
    "boundary_every_steps": 1_000,
    "trial_learning_rate": 3e-3,
    "memory_limit_bytes": 8 * 1024**3,
    "max_rollbacks": 5,
    "max_checkpoints_size_bytes": 10 * 1024**3,
}
"""For fields whose default is None, which TOML cannot say."""
_WORDS: Final = {"None": "left out", "True": "true", "False": "false"}
_LARGE: Final = 10_000


def config_text() -> str:
    """The whole file; as it is it states what belongs to the script, all else is a comment."""
    lines = [*_comment(_HEADER), *_fields(TrainSpec, leave_out="esper"), "", "[esper]"]
    return "\n".join([*lines, *_fields(EsperConfig)]) + "\n"


def meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstring that stands below each field, as one line."""
    found: dict[str, str] = {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    body = definition.body
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _fields(kind: type[msgspec.Struct], leave_out: str = "") -> Iterator[str]:
    said = meanings(kind)
    for field in msgspec.structs.fields(kind):
        if field.name == leave_out:
            continue
        yield ""
        yield from _comment(re.sub(r"\b(None|True|False)\b", _in_toml, said[field.name]))
        if field.name in _STATED:
            yield f"{field.name} = {_toml(_STATED[field.name])}"
        else:
            shown = field.default
            if shown is msgspec.NODEFAULT:
                shown = field.default_factory()
            if shown is None:
                yield f"#{field.name} = {_toml(_EXAMPLES[field.name])}  # for example"
            else:
                yield f"#{field.name} = {_toml(shown)}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _in_toml(word: re.Match[str]) -> str:
    return _WORDS[word.group()]


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= _LARGE else str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        assert not value, "no default holds a table that is not empty"
        return "{}"
    return json.dumps(value) if isinstance(value, str) else repr(value)
