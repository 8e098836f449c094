"""The slot: how seeds hang on a module of the host without moving a single name of it.

A module gets a slot by having its class swapped for a subclass of that class, whose forward calls
the host's forward and then the slot. State-dict keys, `isinstance`, iteration, `len` and
`children()` stay as they were; the seeds' own keys appear under `<site>.esper.`. Taking the slot
away puts the class back, so a module without seeds is the untouched host again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from kasmina.sites.output import main_tensor, with_main
from kasmina.slots.chunked import Roster
from kasmina.slots.description import read_descriptions, to_tensor
from kasmina.slots.grafted_seed import GraftedSeed
from leyline import SiteError

SLOT: Final = "esper"
"""The attribute, and so the state-dict prefix, under which a module carries its slot."""


class Slot(nn.Module):
    """The seeds of one site, applied in order of grafting, those on chunks side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()

    def forward(self, *inputs: Any) -> Any:
        """Do nothing: a host that runs all of its `_modules` must not run the seeds twice."""
        return inputs[0] if len(inputs) == 1 else inputs

    def extend(self, output: Any) -> Any:
        """Pass the main tensor of the host's output through every seed."""
        host = main_tensor(output)
        assert host is not None, "the survey takes no site that returns no tensor"
        grown = host
        for turn in self.roster.turns:
            grown = turn(grown)
        return output if grown is host else with_main(output, grown)

    def seeds(self) -> Iterator[GraftedSeed]:
        """The seeds in order of grafting."""
        for seed in self._modules.values():
            assert isinstance(seed, GraftedSeed)
            yield seed

    def get_extra_state(self) -> Tensor:
        """The structure as JSON in a uint8 tensor, so any checkpoint describes itself."""
        described = [
            {"key": key, **seed.describe()}
            for key, seed in zip(self._modules, self.seeds(), strict=True)
        ]
        return to_tensor(described)

    def set_extra_state(self, state: Any) -> None:
        """Take over which seeds were active and trainable; the modules themselves are there.

        Raises:
            CheckpointError: the description is damaged; nothing was changed.
        """
        owner = f"the slot of {', '.join(repr(seed.seed) for seed in self.seeds())}"
        for described in read_descriptions(state, owner):
            seed = self._modules.get(described.key)
            if isinstance(seed, GraftedSeed):  # else load_state_dict itself reports its keys
                seed.active = described.active and seed.fault is None
                seed.requires_grad_(described.trainable)


def _rebuild(host_class: type[nn.Module]) -> nn.Module:
    """An empty grown module, for copy and pickle, which cannot name a class made here."""
    grown: nn.Module = host_class.__new__(host_class)
    grown.__class__ = grown_class(cast(Hashable, host_class))
    return grown


class _Grown:
    """Mix-in that puts the slot after the host's forward and hides it from the host's own code."""

    _esper_host_class: Any  # a type[nn.Module]; Any because its methods are called unbound
    _modules: dict[str, Any]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The host's own, then the slot."""
        return self._modules[SLOT].extend(self._esper_host_class.forward(self, *args, **kwargs))

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The host's own, without the slot."""
        for name, child in self._esper_host_class.named_children(self):
            if name != SLOT:
                yield name, child

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Self:
        # nn.Module reaches children through children(), which hides the slot.
        self._esper_host_class._apply(self, fn, *args, **kwargs)
        self._modules[SLOT]._apply(fn, *args, **kwargs)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the host and, as `_apply` does, of the slot."""
        self._esper_host_class.train(self, mode)
        self._modules[SLOT].train(mode)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self._esper_host_class,), self.__getstate__()


class _GrownSequential(_Grown):
    """A container must not take the slot for a member and run it twice."""

    def _members(self) -> OrderedDict[str, nn.Module]:
        return OrderedDict((k, m) for k, m in self._modules.items() if k != SLOT and m is not None)

    def __len__(self) -> int:
        return len(self._members())

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._members().values())

    def __getitem__(self, index: slice | int) -> nn.Module:
        # The host's own indexing, on a twin without the slot: a slice has the host's class.
        bare = self._esper_host_class.__new__(self._esper_host_class)
        bare.__dict__.update(self.__dict__, _modules=self._members())
        return cast(nn.Module, bare[index])


@cache
def grown_class(host_class: Hashable) -> type[nn.Module]:
    """The subclass that modules of a class get while they carry a slot; one per class."""
    assert isinstance(host_class, type)
    mixin = _GrownSequential if issubclass(host_class, nn.Sequential) else _Grown
    namespace = {
        "_esper_host_class": host_class,
        "__module__": host_class.__module__,
        "__qualname__": host_class.__qualname__,
        "__doc__": host_class.__doc__,
    }
    return type(host_class.__name__, (mixin, host_class), namespace)


def slot_of(module: nn.Module) -> Slot | None:
    """The module's slot, or None for a module without seeds."""
    return cast(Slot, module._modules[SLOT]) if isinstance(module, _Grown) else None


def refusal(module: nn.Module) -> str | None:
    """Say why a module cannot carry a slot, or None if it can."""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is a script module, whose class cannot be extended"
    if "forward" in module.__dict__:
        return "its forward is patched on the instance, so a subclass's would never be called"
    if not isinstance(module, _Grown) and hasattr(module, SLOT):
        return f"it already has an attribute {SLOT!r}"
    return None


def attach_seed(site: str, module: nn.Module, seed: GraftedSeed) -> None:
    """Hang a seed on a module, after those it already has.

    Raises:
        SiteError: the module cannot carry a slot; nothing was changed.
    """
    reason = refusal(module)
    if reason is not None:
        raise SiteError(f"site {site!r} cannot carry a seed: {reason}; choose another site")
    slot = slot_of(module)
    key = seed.seed.rsplit("/", 1)[-1]
    if not key or "." in key or (slot is not None and hasattr(slot, key)):
        raise SiteError(
            f"site {site!r} cannot carry seed {seed.seed!r}: {key!r} is taken there or no key of "
            "a state dict; name seeds <site>/<number>"
        )
    if slot is None:
        slot = Slot().train(module.training)
        try:
            module.__class__ = grown_class(cast(Hashable, type(module)))
        except TypeError as error:
            raise SiteError(
                f"site {site!r} cannot carry a seed: its class {type(module).__name__} cannot be "
                f"extended ({error}); choose another site"
            ) from error
        module.add_module(SLOT, slot)
    slot.add_module(key, seed.train(module.training))
    slot.roster.enrol(slot.seeds())


def detach_seed(module: nn.Module, seed: GraftedSeed) -> None:
    """Take a seed off a module; with the last one gone the module has its own class again."""
    slot = slot_of(module)
    if slot is None or seed not in slot._modules.values():
        raise SiteError(f"seed {seed.seed!r} is not attached here; nothing was changed")
    del slot._modules[next(key for key, held in slot._modules.items() if held is seed)]
    slot.roster.enrol(slot.seeds())
    if not slot._modules:
        module.__class__ = cast(Any, module)._esper_host_class
        del module._modules[SLOT]


class AttachedSeed(NamedTuple):
    """A seed in a model, and where it hangs."""

    site: str
    """Dotted name of the module."""
    module: nn.Module
    seed: GraftedSeed


def every_seed(model: nn.Module) -> list[AttachedSeed]:
    """Every seed in a model, in order of its submodules, those of one in order of grafting."""
    found: list[AttachedSeed] = []
    seen: set[nn.Module] = set()
    # By hand: named_modules() resumes a generator for every level above a module.
    left: list[tuple[str, nn.Module | None]] = [("", model)]
    while left:
        site, module = left.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        if isinstance(module, Slot):
            continue  # no seed hangs in a seed
        if (slot := slot_of(module)) is not None:
            found += [AttachedSeed(site, module, seed) for seed in slot.seeds()]
        prefix = f"{site}." if site else ""
        children = module._modules
        left += [(prefix + name, children[name]) for name in reversed(children)]
    return found


def seed_at_its_site(model: nn.Module, name: str) -> AttachedSeed | None:
    """The seed that hangs where its name says, if one does; the model is not searched."""
    site, _, key = name.rpartition("/")
    module: nn.Module | None = model
    for part in site.split(".") if site else ():
        module = None if module is None else module._modules.get(part)
    slot = None if module is None else slot_of(module)
    seed = None if slot is None else slot._modules.get(key)
    if module is None or not isinstance(seed, GraftedSeed):
        return None
    return AttachedSeed(site, module, seed)


def attached_seeds(model: nn.Module) -> dict[str, AttachedSeed]:
    """The seeds in a model by name.

    A model that keeps a copy of a part of itself has several of one name: it is then the one that
    hangs where its name says, else the first.
    """
    found: dict[str, AttachedSeed] = {}
    for held in every_seed(model):
        name = held.seed.seed
        if name not in found or name.rpartition("/")[0] == held.site:
            found[name] = held
    return found
