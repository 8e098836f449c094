"""The structure of a grown model: read from a state dict, given to a fresh host, taken away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kasmina.lightning_file import read_state_dict
from kasmina.slots.description import SeedDescription
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.held_seeds import all_or_nothing
from kasmina.slots.slot import SLOT, attach_seed, detach_seed, every_seed
from kasmina.stored_seeds import build, check_fit, described_seeds
from leyline import CheckpointError, ExportError

MODEL_FILE: Final = "model.safetensors"
"""Name of the file inside an Esper checkpoint directory that holds the model's state dict."""


def detach(model: nn.Module) -> nn.Module:
    """Take every seed off a model: the untouched host again, its own trained weights kept.

    Returns:
        The same model, for chaining.
    """
    for held in every_seed(model):
        detach_seed(held.module, held.seed)
    return model


def match_structure(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Give a model exactly the seeds that a state dict describes, in that order.

    Those that fit already stay in place.

    Raises:
        SiteError, BlueprintError, CheckpointError: a site, a blueprint or the description itself
            is not to be had, or a seed does not fit its site or its tensors; nothing was changed.
    """
    wanted = described_seeds(state_dict)
    check_fit(model, state_dict, wanted)
    held = {
        (site, seed.seed.rsplit("/", 1)[-1]): (module, seed)
        for site, module, seed in every_seed(model)
    }
    fitting = {
        place: seed
        for place, (_, seed) in held.items()
        if place in wanted and _is_as_described(seed, wanted[place])
    }
    seeds = {
        place: fitting.get(place) or build(model, place[0], described)
        for place, described in wanted.items()
    }
    if list(held) == list(fitting) == list(wanted):
        return
    with all_or_nothing(model):
        for module, seed in held.values():
            detach_seed(module, seed)
        # Anew in the order described: the output of one seed at a site is the input of the next.
        for (site, _), seed in seeds.items():
            attach_seed(site, model.get_submodule(site), seed)


def _is_as_described(seed: GraftedSeed, described: SeedDescription) -> bool:
    return (seed.blueprint, seed.chunk, seed.shape.to_dict()) == (
        described.blueprint,
        described.chunk,
        described.shape.to_dict(),
    )


def grow_on_load(model: nn.Module) -> Any:
    """Make `model.load_state_dict` grow the seeds that the state describes, before it loads them.

    Returns:
        A handle whose `remove()` ends this.
    """

    def hook(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Match the module to its own part of the state, which torch names with a prefix."""
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
        CheckpointError: the file is missing, damaged or does not fit the model, which is then as
            it was: the same seeds, the same weights.
    """
    state_dict = _without_prefix(model, _read(Path(path)))
    try:
        with all_or_nothing(model, state_dict):
            _load(model, state_dict)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {error}") from error
    return model


def _load(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    match_structure(model, state_dict)
    seeds_alone = bool(state_dict) and all(is_seed_key(name) for name in state_dict)
    missed = model.load_state_dict(state_dict, strict=not seeds_alone)
    wrong = [n for n in (*missed.missing_keys, *missed.unexpected_keys) if is_seed_key(n)]
    if wrong:
        raise CheckpointError(f"it does not hold its seeds whole: see {', '.join(wrong)}")


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
    try:
        safetensors.torch.save_file(seeds, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


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
