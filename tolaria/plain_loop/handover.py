"""What a hand-written loop hands to `Orchestrator.attach`, checked before anything is opened."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from kasmina.guard import describe
from kasmina.slots.slot import attached_seeds, every_seed
from leyline import ConfigError
from tolaria.rates import refuse_unfit

_LOG = logging.getLogger("esper")


def check(model: Any, optimizer: Any, *, grows: bool) -> None:
    """Refuse what cannot be grown.

    Raises:
        ConfigError: the model is no module or carries seeds, the optimizer cannot take a seed or
            trains another model, or several processes train together.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if not grows:
        return
    refuse_unfit([optimizer])
    refuse_seeds(list(attached_seeds(model)), type(model).__name__)
    if is_frozen(model):
        _LOG.info(
            "no parameter of %s takes a gradient, so while no seed is blended in its loss has no "
            "graph: call loss.backward() only if loss.requires_grad",
            type(model).__name__,
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ConfigError(
            f"optimizer {type(optimizer).__name__} holds no parameter of this "
            f"{type(model).__name__}; give the one that was built from model.parameters()"
        )
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        num_processes = distributed.get_world_size()
        if num_processes > 1:
            raise ConfigError(
                f"{num_processes} processes train together, in which parameters added by one "
                "would silently diverge; train in one process, or set policy='hold'"
            )


def is_frozen(model: nn.Module) -> bool:
    """Whether no parameter of the host takes a gradient; its seeds may."""
    grown = {id(p) for _, _, seed in every_seed(model) for p in seed.parameters()}
    return not any(p.requires_grad for p in model.parameters() if id(p) not in grown)


def refuse_seeds(seeds: list[str], model: str) -> None:
    """Refuse a model with seeds that this run knows nothing of.

    Raises:
        ConfigError: there is one.
    """
    if seeds:
        raise ConfigError(
            f"{model} carries seeds that this run has not grown: {', '.join(seeds)}; take them "
            "off with kasmina.detach(model), or make them part of the host with "
            "model = kasmina.export(model) and build a new optimizer"
        )


def arguments_of(example: Any) -> tuple[Any, ...] | None:
    """The positional arguments of one forward call; a single tensor is a tuple of one.

    Raises:
        ConfigError: it is neither a tuple nor a tensor.
    """
    if example is None:
        return None
    if isinstance(example, Tensor):
        return (example,)
    if isinstance(example, tuple | list):
        return tuple(example)
    raise ConfigError(
        f"example is a {type(example).__name__}; give the positional arguments of one forward "
        "call as a tuple, such as (inputs,)"
    )


def what_trials_lack(loss_fn: object, data: object) -> str | None:
    """Why a loop that was attached with these can run no trials, or None if it can."""
    if loss_fn is not None and data is not None:
        return None
    return f"no trial: attach() was given no {'loss_fn' if loss_fn is None else 'data'}"


def cause_of(given: str | Exception) -> str:
    """What a rollback that was asked for says of itself.

    Raises:
        ConfigError: it is neither text nor an error.
    """
    if isinstance(given, Exception):
        given = describe(given)
    check_text("cause", given)
    return given


def check_text(name: str, given: object) -> None:
    """Refuse what no message could hold.

    Raises:
        ConfigError: it is not text, or has no place in UTF-8.
    """
    if not isinstance(given, str):
        raise ConfigError(f"{name} is a {type(given).__name__}; give a few words")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} is {given!a}, which is not valid text: {error.reason}") from None
