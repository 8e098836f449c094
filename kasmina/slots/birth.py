"""Birth: a seed built from its blueprint, where and like what the module at its site is."""

from __future__ import annotations

import copy
from itertools import chain

from torch import nn
from torch.nn.parameter import UninitializedParameter

from kasmina.blueprints import Risk, catalogue
from kasmina.settings import kept_settings
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import graft
from kasmina.slots.grafted_seed import GraftedSeed
from leyline import BlueprintError


def build_seed(
    model: nn.Module,
    site: str,
    *,
    seed: str,
    blueprint: str,
    shape: SiteShape,
    chunk: tuple[int, int],
    rng_seed: int,
) -> GraftedSeed:
    """Build a seed at alpha 0 that hangs nowhere yet and shares nothing with the host.

    It is on the device and of the dtype of the first parameter at its site, else of the model's.

    Args:
        site: name of the module that it is for.
        shape: what it will see: the site's output, or one chunk of its channels.
        chunk: which of how many equal parts of the channels, from 0.
        rng_seed: what its weights and its own random streams come from.

    Raises:
        BlueprintError: the blueprint is not registered, or its factory returns what belongs to the
            host or has no size, or leaves torch's settings changed.
        Exception: whatever the factory itself raises.
    """
    kind = catalogue[blueprint]
    with kept_settings() as changed:
        body = kind.build(shape, rng_seed)
    if kind.risk is Risk.HIGH:
        body = _independent(body, model, blueprint)
    if changed:
        what = " and ".join(changed)
        raise BlueprintError(f"the factory of {blueprint!r} changes {what}; mend it")
    built = graft(
        body,
        seed=seed,
        blueprint=blueprint,
        shape=shape,
        chunk=chunk,
        shielded=kind.risk is Risk.HIGH,
        rng_seed=rng_seed,
    )
    like = next(chain(model.get_submodule(site).parameters(), model.parameters()), None)
    if like is not None:
        built.to(device=like.device)
        built.body.to(dtype=like.dtype)
    return built


def _independent(body: nn.Module, model: nn.Module, blueprint: str) -> nn.Module:
    """A body that shares nothing with the host, and nothing with another seed's.

    Raises:
        BlueprintError: it holds parameters or buffers of the host, which a trial would train, or
            parameters without a size.
    """
    hosts = {id(t): name for name, t in chain(model.named_parameters(), model.named_buffers())}
    its = f"the factory of {blueprint!r} returns a module"
    for tensor in chain(body.parameters(), body.buffers()):
        if id(tensor) in hosts:
            name = hosts[id(tensor)]
            raise BlueprintError(f"{its} that holds {name!r} of the host; give it a copy")
        if isinstance(tensor, UninitializedParameter):
            raise BlueprintError(f"{its} with lazy parameters; build it with its sizes")
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in body.parameters()):
        return body  # the proof will find them; a copy has none
    return copy.deepcopy(body)  # a factory may return one module again and again
