"""Going on with a hand-written loop's run: the same script, run again, ends in the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from kasmina import grow_on_load
from leyline import CheckpointError, ConfigError
from tolaria.config import EsperConfig
from tolaria.disk.checkpoint import load
from tolaria.disk.manifest import read_manifest
from tolaria.disk.misfit import MISFIT, refusing_misfits
from tolaria.disk.store import Groups
from tolaria.live_run import LiveRun
from tolaria.resume import growth_state, rng_state
from tolaria.resume.occasion import group_names
from tolaria.run_begin import refuse_strange
from tolaria.session import Session

_LIKE_PARAMETER: Final = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
"""What torch's own optimizers hold in the shape of the parameter."""


class LoopState(NamedTuple):
    """A checkpoint that a loop goes on from."""

    path: Path
    state: dict[str, Any]
    groups: Groups


def has_run(config: EsperConfig) -> bool:
    """Whether there is a run to go on with.

    Raises:
        ConfigError: no directory is named.
    """
    if config.run_dir is None:
        raise ConfigError("resume=True goes on in run_dir; name the directory, the same each time")
    return (Path(config.run_dir) / "run.json").is_file()


def load_model(session: Session, model: nn.Module) -> LoopState | None:
    """Grow and load a fresh model as the newest whole checkpoint says, in place.

    Returns:
        The checkpoint; None if nothing was saved yet: the model is as it was.

    Raises:
        CheckpointError: it does not fit the model, is not one of a hand-written loop, or there
            were some and none is whole.
    """
    path = session.newest_checkpoint()
    if path is None:
        session.refuse_lost()
        return None
    state = load(path)
    if "optimizer_states" not in state or "esper" not in state:
        raise CheckpointError(
            f"{path} is not of a hand-written loop; give it to Trainer.fit as ckpt_path"
        )
    handle = grow_on_load(model)
    try:
        model.load_state_dict(state["state_dict"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {error}") from error
    finally:
        handle.remove()
    return LoopState(path, state, read_manifest(path).structure.groups)


def restore(esper: LiveRun, saved: LoopState | None) -> None:
    """Give optimizers, schedulers, growth and random streams their saved state.

    Without one the journal is emptied: what happened before nothing was saved happens again.

    Raises:
        CheckpointError: the optimizers or schedulers are not those that were saved.
    """
    if saved is None:
        esper.replay(esper.session.recorder.rewind(0))
        return
    growth = saved.state["esper"]
    with refusing_misfits(str(saved.path)):
        _restore(esper, saved, growth)
    refuse_strange(esper)
    growth_state.rewind(esper, growth)  # last: nothing is written before all else has fitted


def _restore(esper: LiveRun, saved: LoopState, growth: Mapping[str, Any]) -> None:
    growth_state.restore_growth(esper, growth, rng=False)
    optimizers = esper.rates.optimizers
    _refuse_other("optimizer", optimizers, saved.state["optimizer_states"], saved.path)
    _refuse_other("scheduler", esper.schedulers, saved.state.get("schedulers", []), saved.path)
    scalers = saved.state.get("scalers", [])
    _refuse_other("scaler", esper.recovery.parts.scalers, scalers, saved.path)
    _refuse_other_groups(saved, group_names(esper))
    _load("optimizer", optimizers, saved.state["optimizer_states"], saved.path)
    _load("scheduler", esper.schedulers, saved.state.get("schedulers", []), saved.path)
    _load("scaler", esper.recovery.parts.scalers, scalers, saved.path)
    rng_state.restore(growth["rng"])


def _refuse_other(what: str, ours: Sequence[Any], states: Sequence[Any], path: Path) -> None:
    if len(ours) != len(states):
        raise CheckpointError(
            f"{path} holds {len(states)} {what}s and {len(ours)} were given; give as many as then"
        )


def _refuse_other_groups(saved: LoopState, now: Groups) -> None:
    """State of optimizers is matched by position: the names at every position must be the same."""
    for number, (then, ours) in enumerate(zip(saved.groups, now, strict=False)):
        if then == ours:
            continue
        flat, held = ([name for group in groups for name in group] for groups in (then, ours))
        pairs = zip([*flat, ""], [*held, ""], strict=False)
        was, found = next(((a, b) for a, b in pairs if a != b), ("other groups", "these"))
        raise CheckpointError(
            f"{saved.path}: optimizer {number} had {was or 'nothing'!r} where it now has "
            f"{found or 'nothing'!r}; build model and optimizer as when it was written"
        )


def _refuse_unusual(mine: Any) -> None:
    """Refuse an optimizer's options and moments that its first step would break on.

    Torch takes whatever a state holds.
    """
    for group in getattr(mine, "param_groups", ()):
        for name, usual in getattr(mine, "defaults", {}).items():
            value = group.get(name, usual)
            if not _is_alike(value, usual) and (value is not None or name == "lr"):
                raise TypeError(f"{name} is {value!r:.80}, where {usual!r:.80} is usual")
    if not type(mine).__module__.startswith("torch.optim"):
        return  # others may hold moments of a lower rank under these names
    for parameter, moments in getattr(mine, "state", {}).items():
        for name in _LIKE_PARAMETER & moments.keys():
            held = moments[name]
            if held is not None and (not isinstance(held, Tensor) or held.shape != parameter.shape):
                shape = tuple(held.shape) if isinstance(held, Tensor) else type(held).__name__
                raise ValueError(f"{name} is {shape}, its parameter {tuple(parameter.shape)}")


def _is_alike(value: Any, usual: Any) -> bool:
    """Whether a value is a number, or a row of so many of them, where the usual one is."""
    if isinstance(usual, tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(usual)
        return fits and all(map(_is_alike, value, usual))
    return not isinstance(usual, int | float) or isinstance(value, int | float | Tensor)


def _load(what: str, ours: Sequence[Any], states: Sequence[Mapping[str, Any]], path: Path) -> None:
    for mine, state in zip(ours, states, strict=True):
        try:
            mine.load_state_dict(dict(state))
            _refuse_unusual(mine)
        except MISFIT as error:
            raise CheckpointError(
                f"{path}: the {what} {type(mine).__name__} cannot take its state: {error}; build "
                "it as when the checkpoint was written"
            ) from error
