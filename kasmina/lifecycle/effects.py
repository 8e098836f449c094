"""Effects: what each transition does to the live model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kasmina.grafting.ramps import Held, Ramps
from kasmina.grafting.strategies import GraftingRecipe
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.sites.grounds import Grounds
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, attached_seeds, detach_seed, seed_at_its_site
from kasmina.trials.nursery import Nursery
from leyline import LIFECYCLE, SiteError, Stage


class Effects:
    """Attaches, freezes, thaws and detaches seeds; called once the transition is known legal."""

    def __init__(self, model: nn.Module, table: SeedTable, grounds: Grounds, nursery: Nursery):
        self._model = model
        self._table = table
        self._grounds = grounds
        self._nursery = nursery
        self._moments: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._ramps = Ramps(table)
        self._held: Held | None = None
        self.ramp_steps = 1
        """Steps in which the next seed's alpha goes from 0 to 1."""
        self.grafting = GraftingRecipe()
        """How the next seed is grafted."""

    def carry_out(self, seed: str, to: Stage) -> None:
        """Make the model what it is to be in the stage that the seed goes to.

        Raises:
            SiteError: the site cannot carry the seed; nothing was changed.
        """
        self._held = None
        if to is Stage.GRAFTING:
            self._graft(seed)
            return
        self._ramps.end(seed)
        if to in (Stage.CANCELLED, Stage.CULLED, Stage.ROLLED_BACK):
            self._moments.pop(seed, None)
        if not LIFECYCLE[self._table.stage(seed)].in_forward:
            return
        held = seed_at_its_site(self._model, seed)
        if held is None:
            raise SiteError(f"seed {seed!r} hangs nowhere; somebody has taken it off the model")
        _, host, module = held
        if LIFECYCLE[to].in_forward:
            _set_trainable(module, LIFECYCLE[to].trains_in_host)
        else:
            detach_seed(host, module)

    def step(self, loss: float | None) -> dict[str, str]:
        """Move the alpha of every grafting seed on by one step; why grafts failed, by seed."""
        if not len(self._ramps):
            return {}
        if self._held is None:
            # Found once: walking a large model after every step would be felt.
            attached = attached_seeds(self._model)
            self._held = {seed: (host, module) for seed, (_, host, module) in attached.items()}
        return self._ramps.step(self._held, loss)

    def state_dict(self) -> dict[str, Any]:
        """Where every ramp stands."""
        return self._ramps.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved ramps, once the table is loaded and the model has its seeds."""
        self._held = None
        self._ramps.load_state_dict(state)

    def take_moments(self, seed: str) -> Sequence[Mapping[str, Any]]:
        """Optimizer state that a seed brings from its trial, one mapping per parameter, once."""
        return self._moments.pop(seed, ())

    def _graft(self, seed: str) -> None:
        table = self._table
        site, blueprint = self._grounds.at(table.get(seed, "site"), table.get(seed, "blueprint"))
        trial = self._nursery.trial(seed)
        moments: Sequence[Mapping[str, Any]] = ()
        if trial is not None and trial.fault is None:
            module, moments = trial.module, trial.moments()
        else:
            module = self._nursery.build(seed, site, blueprint, table.get(seed, "birth_epoch"))
        module.blend(0.0)
        _set_trainable(module, True)
        host = self._model.get_submodule(site.name)
        attach_seed(site.name, host, module)
        self._ramps.begin(seed, self.ramp_steps, self.grafting, host)
        self._moments[seed] = moments


def _set_trainable(module: GraftedSeed, trainable: bool) -> None:
    module.requires_grad_(trainable)
    for parameter in module.parameters():
        # A left gradient would still move a frozen weight.
        parameter.grad = None
