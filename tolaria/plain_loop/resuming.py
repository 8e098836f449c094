"""Going on with a hand-written loop's run: the same script, run again, ends in the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from kasmina import grow_on_load
from leyline import CheckpointError, ConfigError
from tolaria.config import EsperConfig
from tolaria.disk.checkpoint import load
from tolaria.disk.manifest import read_manifest
from tolaria.disk.store import Groups
from tolaria.live_run import LiveRun
from tolaria.resume import growth_state, rng_state
from tolaria.resume.occasion import group_names
from tolaria.session import Session


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
    growth_state.restore_growth(esper, saved.state["esper"], rng=False)
    optimizers = esper.rates.optimizers
    _refuse_other("optimizer", optimizers, saved.state["optimizer_states"], saved.path)
    _refuse_other("scheduler", esper.schedulers, saved.state.get("schedulers", []), saved.path)
    scalers = saved.state.get("scalers", [])
    _refuse_other("scaler", esper.recovery.parts.scalers, scalers, saved.path)
    _refuse_other_groups(saved, group_names(esper))
    _load("optimizer", optimizers, saved.state["optimizer_states"], saved.path)
    _load("scheduler", esper.schedulers, saved.state.get("schedulers", []), saved.path)
    _load("scaler", esper.recovery.parts.scalers, scalers, saved.path)
    rng_state.restore(saved.state["esper"]["rng"])


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


def _load(what: str, ours: Sequence[Any], states: Sequence[Mapping[str, Any]], path: Path) -> None:
    for mine, state in zip(ours, states, strict=True):
        try:
            mine.load_state_dict(dict(state))
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"{path}: the {what} {type(mine).__name__} cannot take its state: {error}; build "
                "it as when the checkpoint was written"
            ) from error
