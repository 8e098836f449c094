"""Stored seeds: those that a state dict describes, held against the model before any is built."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kasmina.blueprints import Blueprint, catalogue
from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.settings import kept_settings
from kasmina.sites.layout import layout_of
from kasmina.slots.birth import build_seed
from kasmina.slots.description import SeedDescription, read_descriptions, read_seed_state
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import SLOT, refusal
from leyline import CheckpointError, SiteError

_DESCRIPTION: Final = f"{SLOT}._extra_state"
Place = tuple[str, str]
"""Site name and the seed's key in the slot."""


def described_seeds(state_dict: Mapping[str, Any]) -> dict[Place, SeedDescription]:
    """The seeds that a state dict describes, in order.

    Raises:
        CheckpointError: a description is damaged.
    """
    found = {}
    for name, value in state_dict.items():
        if name == _DESCRIPTION or name.endswith("." + _DESCRIPTION):
            site = name.removesuffix(_DESCRIPTION).removesuffix(".")
            for seed in read_descriptions(value, f"the seeds at {site!r}"):
                found[site, seed.key] = seed
    return found


def check_fit(
    model: nn.Module, state_dict: Mapping[str, Any], wanted: Mapping[Place, SeedDescription]
) -> None:
    """Hold described seeds against the model and against their own tensors; no memory is taken.

    Raises:
        SiteError: the model has no such site, or it cannot carry a seed.
        BlueprintError: a blueprint is unknown.
        CheckpointError: a seed is not as wide as its site, not of a shape for its blueprint, or its
            tensors are missing or not of the sizes that follow from its description.
    """
    widths: dict[str, int] = {}
    for (site, key), described in wanted.items():
        seed = f"seed {described.seed!r} at {site!r}"
        module, kind = _module_at(model, site), catalogue[described.blueprint]
        _check_width(seed, module, described, widths.setdefault(site, _width(described)))
        fits = attempt(partial(kind.fits, described.shape))
        if fits is not True:
            why = f": {describe(fits)}" if isinstance(fits, Exception) else ""
            raise CheckpointError(
                f"{seed} is a {kind.name}, which does not fit shape {tuple(described.shape)}{why}"
            )
        _check_tensors(seed, f"{site}.{SLOT}.{key}".lstrip("."), state_dict, kind, described)


def build(model: nn.Module, site: str, described: SeedDescription) -> GraftedSeed:
    """A seed as described, its weights apart.

    Raises:
        CheckpointError: the blueprint cannot be built.
    """
    # What its weights and random streams come from does not matter: they are loaded next.
    seed = attempt(
        lambda: build_seed(
            model,
            site,
            seed=described.seed,
            blueprint=described.blueprint,
            shape=described.shape,
            chunk=described.chunk,
            rng_seed=0,
        )
    )
    if isinstance(seed, Exception):
        raise CheckpointError(
            f"seed {described.seed!r} at {site!r} cannot be built: {describe(seed)}"
        ) from seed
    return seed


def _module_at(model: nn.Module, site: str) -> nn.Module:
    try:
        module = model.get_submodule(site)
    except AttributeError:
        raise SiteError(
            f"the state has a seed at {site!r}, which {type(model).__name__} does not have; "
            "load it into the host that it was grown on"
        ) from None
    reason = refusal(module)
    if reason is not None:
        raise SiteError(f"the state has a seed at {site!r}, which cannot carry one: {reason}")
    return module


def _width(described: SeedDescription) -> int:
    """Channels of the whole site."""
    return described.shape.channels * described.chunk[1]


def _check_width(seed: str, module: nn.Module, described: SeedDescription, first: int) -> None:
    """Against what the module declares, if it is torch's own, and the site's first seed."""
    shape, width = described.shape, _width(described)
    if width != first:
        raise CheckpointError(f"{seed} is for {width} channels, another one there for {first}")
    layout = layout_of(module) if type(module).__module__.startswith("torch.nn.") else None
    if layout is None or layout.channels < 1:  # a lazy norm knows its width only once it has run
        return
    axis = -1 if len(shape) == 2 else layout.channel_axis
    if (width, shape.channel_axis) != (layout.channels, axis):
        raise CheckpointError(
            f"{seed} is for {width} channels on axis {shape.channel_axis}, but the "
            f"{type(module).__name__} there has {layout.channels} on axis {axis}; "
            "load it into a host of the widths that it was grown on"
        )


def _check_tensors(
    seed: str,
    prefix: str,
    state_dict: Mapping[str, Any],
    kind: Blueprint,
    described: SeedDescription,
) -> None:
    """Sizes as the blueprint has them on the meta device, where they cost nothing."""
    alpha = state_dict.get(f"{prefix}.alpha")
    if alpha is not None and not _is_fraction(alpha):
        raise CheckpointError(f"{seed} has alpha {alpha!r:.80}; it goes from 0 to 1")
    if f"{prefix}._extra_state" in state_dict:
        read_seed_state(state_dict[f"{prefix}._extra_state"], seed)
    with kept_settings(), isolated_rng(0), torch.device("meta"):
        body = attempt(lambda: kind.factory(described.shape))
    if isinstance(body, Exception):
        return  # some initialisers need real tensors
    for name, parameter in body.named_parameters(prefix=f"{prefix}.body"):
        held = state_dict.get(name)
        if not isinstance(held, Tensor):
            raise CheckpointError(f"{seed} is not whole: {name} is missing")
        if not is_lazy(parameter) and held.shape != parameter.shape:
            raise CheckpointError(
                f"{seed} is a {kind.name} of shape {tuple(described.shape)}, whose {name} has "
                f"shape {tuple(parameter.shape)}; the state holds {tuple(held.shape)}"
            )


def _is_fraction(alpha: Any) -> bool:
    fits = isinstance(alpha, Tensor) and alpha.numel() == 1 and alpha.is_floating_point()
    return fits and not alpha.is_meta and 0.0 <= float(alpha) <= 1.0
