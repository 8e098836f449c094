"""A picture of a run: all that its next steps depend on, by name; a seed can be left out of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from torch import Tensor

from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tests.tolaria.plain_loops import streams
from tests.tolaria.rollback.loops import Loop
from tolaria.rates.groups import SEED_KEY

Picture = dict[str, dict[Any, Any]]
"""Pieces of the state by kind, and within a kind by name; compare them with ==."""
_HOST: Final = ""
_SITES_OWN: Final = ".esper._extra_state"
_COUNTED_ON: Final = ("checkpoint_id",)
"""Columns that never go back: no two records of a run have the same number."""


def picture(loop: Loop) -> Picture:
    """Copies that nothing later reaches."""
    executor = loop.parts.executor
    groups = loop.optimizer.param_groups
    paths = {module: name for name, module in loop.model.named_modules()}
    names = {id(t): name for name, t in loop.model.state_dict(keep_vars=True).items()}
    return {
        "weights": {name: _plain(value) for name, value in loop.model.state_dict().items()},
        "moments": {
            names[id(parameter)]: {key: _plain(value) for key, value in state.items()}
            for parameter, state in loop.optimizer.state.items()
        },
        "groups": {
            group.get(SEED_KEY, _HOST): {
                "names": [names[id(p)] for p in group["params"]],
                **{key: repr(value) for key, value in group.items() if key != "params"},
            }
            for group in groups
        },
        "schedule": {
            key: dict(zip(_owners(loop), value, strict=True)) if isinstance(value, list) else value
            for key, value in loop.schedule.state_dict().items()
        },
        "grown": {
            seed: [key for key in loop.model.state_dict() if key.startswith(f"{paths[module]}.")]
            for seed, (_, _, module) in attached_seeds(loop.model).items()
        },
        "ramps": executor.state_dict()["ramps"],
        "rates": loop.parts.rates.state_dict()["seeds"],
        "seeds": _rows(loop),
        "rest": {
            "ramp_steps": executor.ramp_steps,
            "controller": repr(loop.parts.controller.state_dict()),
            "streams": streams(),
        },
    }


def without(whole: Picture, seeds: Iterable[str]) -> Picture:
    """The picture of all but these seeds, and of what their sites know of them."""
    out = set(seeds)
    if not out:
        return whole
    keys = {key for seed in out for key in whole["grown"].get(seed, ())}
    gone = out | keys
    left = {
        kind: {
            name: value
            for name, value in pieces.items()
            if name not in gone and not str(name).endswith(_SITES_OWN)
        }
        for kind, pieces in whole.items()
    }
    left["schedule"] = {
        key: {o: v for o, v in value.items() if o not in out} if isinstance(value, dict) else value
        for key, value in whole["schedule"].items()
    }
    return left


def stages(whole: Picture) -> dict[str, tuple[Stage, int]]:
    """Stage and epochs in it, of every seed."""
    return {
        seed: (Stage(row["stage"]), row["epochs_in_stage"]) for seed, row in whole["seeds"].items()
    }


def _owners(loop: Loop) -> list[str]:
    return [group.get(SEED_KEY, _HOST) for group in loop.optimizer.param_groups]


def _rows(loop: Loop) -> dict[str, dict[str, Any]]:
    table = loop.parts.executor.table
    columns = {
        name: column.tolist()
        for name, column in table.state_dict()["columns"].items()
        if name not in _COUNTED_ON
    }
    return {
        seed: {
            # What was not measured is NaN, which is not even equal to itself.
            **{n: repr(v[i]) if isinstance(v[i], float) else v[i] for n, v in columns.items()},
            "history": table.history(seed),
        }
        for i, seed in enumerate(table.names)
    }


def _plain(value: Any) -> Any:
    return value.detach().numpy().tobytes() if isinstance(value, Tensor) else value
