"""The structure of a grown model: read from a state dict, given to a fresh host, taken away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kasmina.blueprints import Risk, catalogue
from kasmina.lightning_file import read_state_dict
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import graft
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import SLOT, attach_seed, attached_seeds, detach_seed, refusal
from leyline import BlueprintError, CheckpointError, ExportError, SiteError

_DESCRIPTION: Final = f"{SLOT}._extra_state"
MODEL_FILE: Final = "model.safetensors"
"""Name of the file inside an Esper checkpoint directory that holds the model's state dict."""


def detach(model: nn.Module) -> nn.Module:
    """Take every seed off a model: the untouched host again, its own trained weights kept.

    Returns:
        The same model, for chaining.
    """
    for _, module, seed in attached_seeds(model).values():
        detach_seed(module, seed)
    return model


def described_seeds(state_dict: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The seeds that a state dict describes, by (site name, key in the slot), in order."""
    found = {}
    for name, value in state_dict.items():
        if name == _DESCRIPTION or name.endswith("." + _DESCRIPTION):
            site = name.removesuffix(_DESCRIPTION).removesuffix(".")
            try:
                for seed in json.loads(bytes(value.tolist())):
                    number, num_chunks = map(int, seed["chunk"])
                    if not 0 <= number < num_chunks:
                        raise ValueError(f"chunk {number} of {num_chunks}")
                    found[site, str(seed["key"])] = {
                        "seed": str(seed["seed"]),
                        "blueprint": str(seed["blueprint"]),
                        "shape": SiteShape.from_dict(seed["shape"]),
                        "chunk": (number, num_chunks),
                    }
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise CheckpointError(
                    f"the description of the seeds at {site!r} is damaged: {error}"
                ) from error
    return found


def match_structure(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Give a model exactly the seeds that a state dict describes, in that order.

    Those that fit already stay in place.

    Raises:
        SiteError, BlueprintError, CheckpointError: a site, a blueprint or the description itself
            is not to be had; nothing was changed.
    """
    wanted = described_seeds(state_dict)
    held = {
        (site, seed.seed.rsplit("/", 1)[-1]): (module, seed)
        for site, module, seed in attached_seeds(model).values()
    }
    fitting = {
        key: seed
        for key, (_, seed) in held.items()
        if key in wanted
        and (wanted[key]["blueprint"], wanted[key]["chunk"]) == (seed.blueprint, seed.chunk)
    }
    seeds = {
        key: fitting.get(key) or _built(model, key[0], described)
        for key, described in wanted.items()
    }
    if list(held) == list(fitting) == list(wanted):
        return
    for module, seed in held.values():
        detach_seed(module, seed)
    # Anew in the order described: the output of one seed at a site is the input of the next.
    for (site, _), seed in seeds.items():
        attach_seed(site, model.get_submodule(site), seed)


def _built(model: nn.Module, site: str, described: Mapping[str, Any]) -> GraftedSeed:
    """A seed as described, where and like what the module at its site is."""
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
    kind = catalogue[described["blueprint"]]
    body = kind.build(described["shape"], rng_seed=0)
    seed = graft(body, shielded=kind.risk is Risk.HIGH, **described)
    like = next(module.parameters(), next(model.parameters(), None))
    if like is not None:
        seed.to(device=like.device)
        seed.body.to(dtype=like.dtype)
    return seed


def grow_on_load(model: nn.Module) -> Any:
    """Make `model.load_state_dict` grow the seeds that the state describes, before it loads them.

    Returns:
        A handle whose `remove()` ends this.
    """

    def hook(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        match_structure(module, own)

    return cast(Any, model).register_load_state_dict_pre_hook(hook)


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Grow a fresh host to what a file describes and load its weights.

    Args:
        model: the ungrown host, or one that was grown otherwise.
        path: a `.safetensors` file, an Esper checkpoint directory or a Lightning `.ckpt`. Names
            may carry one prefix more than the model's own (a LightningModule's attribute). A file
            of `save_seeds` holds the seeds alone: the host keeps its own weights.

    Returns:
        The same model, grown and loaded.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit the model.
    """
    state_dict = _without_prefix(model, _read(Path(path)))
    try:
        match_structure(model, state_dict)
        seeds_alone = bool(state_dict) and all(is_seed_key(name) for name in state_dict)
        missed = model.load_state_dict(state_dict, strict=not seeds_alone)
        wrong = [n for n in (*missed.missing_keys, *missed.unexpected_keys) if is_seed_key(n)]
        if wrong:
            raise CheckpointError(f"{path} does not hold its seeds whole: see {', '.join(wrong)}")
    except (SiteError, BlueprintError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {error}") from error
    return model


def save_seeds(model: nn.Module, path: str | Path) -> None:
    """Write the seeds of a grown model alone, as adapters that `load` puts on a fresh host.

    Args:
        path: the `.safetensors` file to write; its tensors are named `<site>.esper.<number>...`.

    Raises:
        ExportError: the model carries no seeds, or the file's name has another ending.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ExportError(f"{path} ends in {path.suffix!r}; choose .safetensors")
    seeds = {n: tensor.clone() for n, tensor in model.state_dict().items() if is_seed_key(n)}
    if not seeds:
        raise ExportError(f"{type(model).__name__} carries no seeds, so there is nothing to save")
    safetensors.torch.save_file(seeds, path)


def is_seed_key(name: str) -> bool:
    """Whether a name in a state dict is of a seed or of its description."""
    return SLOT in name.split(".")


def _read(path: Path) -> dict[str, Tensor]:
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"{file} does not exist; give a .safetensors file, an Esper checkpoint directory "
            "or a Lightning .ckpt"
        )
    if file.suffix != ".safetensors":
        return read_state_dict(file)
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from error


def _without_prefix(model: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    own = [name for name in model.state_dict() if not is_seed_key(name)]
    if state_dict and all(is_seed_key(name) for name in state_dict):
        return _seeds_without_prefix(model, state_dict)
    if not own or own[0] in state_dict:
        return state_dict
    prefixes = [n.removesuffix(own[0]) for n in state_dict if n.endswith("." + own[0])]
    for prefix in prefixes:
        if all(prefix + name in state_dict for name in own):
            return {
                n.removeprefix(prefix): v for n, v in state_dict.items() if n.startswith(prefix)
            }
    return state_dict


def _seeds_without_prefix(model: nn.Module, seeds: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, told by the sites: the shortest prefix without which they all are modules here."""
    sites = {name.partition(f".{SLOT}.")[0] for name in seeds}
    modules = {name for name, _ in model.named_modules()}
    parts = min(sites).split(".")
    for length in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:length])
        if all(site.startswith(prefix) and site.removeprefix(prefix) in modules for site in sites):
            return {name.removeprefix(prefix): tensor for name, tensor in seeds.items()}
    return seeds
