"""Which policy a config asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from kasmina.guard import attempt, attempt_foreign, describe
from kasmina.rng import derive_rng_seed, isolated_rng
from kasmina.settings import kept_settings
from leyline import PolicyError, limits
from tamiyo import AskedApart, HoldPolicy, Policy
from tamiyo.policies import SHARED
from tolaria.config import EsperConfig
from tolaria.growth.policy_kinds import policy_kind
from tolaria.monitor import better_sign
from tolaria.settings_sources import plain

_AT_LEISURE_MS: Final = 10_000.0
"""What a policy may take where no boundary waits for it; one that hangs is given up then."""


def build_policy(config: EsperConfig, *, in_time: bool = True) -> Policy:
    """Build the policy named in a config; one that is not built in is asked apart.

    Args:
        in_time: whether that one is held to the time of a boundary.

    Raises:
        PolicyError: it cannot be built.
        ConfigError: a setting of the run does not suit it.
    """
    if not config.grows:
        return HoldPolicy()
    kind = policy_kind(config.policy)
    rules = kind.rules_of(config.policy_options, _shared(config))
    if kind.built_in:
        return kind.factory(rules)

    @contextmanager
    def isolated(epoch: int) -> Iterator[None]:
        """Keep the run's random streams, and torch's settings, as they are."""
        with kept_settings(), isolated_rng(derive_rng_seed("policy", config.rng_seed, epoch)):
            yield

    def build() -> Policy:
        """The policy in its thread."""
        return AskedApart(
            kind.factory(rules),
            kind.name,
            attempt=attempt,
            isolated=isolated,
            deadline_ms=limits.DECIDE_MS if in_time else _AT_LEISURE_MS,
            patience_ms=None if in_time else _AT_LEISURE_MS,
        )

    with isolated(0):
        policy = attempt_foreign(build)
    if isinstance(policy, Exception):
        raise PolicyError(
            f"policy {kind.name!r} cannot be built: {describe(policy)}; mend it, or set another"
        ) from policy
    return policy


def policy_settings(config: EsperConfig) -> dict[str, str]:
    """What `build_policy` goes by, where it differs from the defaults, each value as JSON."""
    names, defaults = ("enabled", "policy", "policy_options", *SHARED), EsperConfig()
    values = {name: getattr(config, name) for name in names}
    changed = {n: value for n, value in values.items() if value != getattr(defaults, n)}
    return {
        name: msgspec.json.encode(value, enc_hook=plain).decode() for name, value in changed.items()
    }


def _shared(config: EsperConfig) -> dict[str, Any]:
    """The settings of the run that a policy's rules may name."""
    values = {name: getattr(config, name) for name in SHARED}
    sign = better_sign(config.monitor, config.monitor_mode)
    return {**values, "monitor_mode": {-1.0: "min", 1.0: "max"}.get(sign, "auto")}
