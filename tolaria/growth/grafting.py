"""How a config wants seeds to be grafted."""

from __future__ import annotations

import logging

from kasmina import GraftingRecipe
from tolaria.config import EsperConfig

_LOG = logging.getLogger("esper")


def grafting_recipe(config: EsperConfig) -> GraftingRecipe:
    """The recipe that a config names; linear where adaptive grafting is switched off."""
    if config.grafting == "adaptive" and not config.adaptive_grafting:
        _LOG.info("adaptive_grafting is off: seeds are grafted linearly")
        return GraftingRecipe()
    return GraftingRecipe(config.grafting, config.grafting_options)
