"""The rollout: which sites may grow in a run, and which are the control arm beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kasmina import Site, SiteFilter, derive_rng_seed
from tolaria.config import EsperConfig, load_config
from tolaria.environment import warn_of_unknown

_NUM_BUCKETS: Final = 100


def arms(sites: Sequence[Site], run_id: str, percentage: int) -> tuple[list[Site], list[Site]]:
    """Divide sites into those that may grow and the control arm, in their order.

    A site's bucket, 0 to 99, is a hash of the run's id and its name: the same on every machine and
    after a resume, and raising the percentage never takes a site out of the arm that grows.

    Args:
        percentage: 0 to 100; sites in a bucket below it may grow.
    """
    grows: list[Site] = []
    control: list[Site] = []
    for site in sites:
        (grows if _bucket(site.name, run_id) < percentage else control).append(site)
    return grows, control


def _bucket(site: str, run_id: str) -> int:
    return derive_rng_seed(run_id, "rollout", site) % _NUM_BUCKETS


def resolve(config: Any, overrides: Mapping[str, Any]) -> tuple[EsperConfig, SiteFilter | None]:
    """Resolve settings as `load_config` does, and a function given as `sites` apart from them.

    All others are plain data, so that a file can hold them. ESPER_* variables that are no settings
    are named in the log, once, where the environment counts at all.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    if not isinstance(config, EsperConfig):
        warn_of_unknown(None, EsperConfig)
    settings = dict(overrides)
    site_filter = settings.pop("sites") if callable(settings.get("sites")) else None
    return load_config(config, settings), site_filter
