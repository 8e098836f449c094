"""Kinds of policy by name, those of installed packages among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kasmina.guard import attempt_foreign, describe
from kasmina.rng import isolated_rng
from tamiyo import PolicyKind, policy_catalogue


def policy_kind(name: str) -> PolicyKind:
    """A policy by name; those of installed packages are imported once a name asks for it.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in policy_catalogue:
        # What an import draws at random must not come from the run's own streams.
        with isolated_rng(0):
            policy_catalogue.load_plug_ins(_contain)
    return policy_catalogue[name]


def _contain(action: Callable[[], Any]) -> Any:
    outcome = attempt_foreign(action)
    return describe(outcome) if isinstance(outcome, Exception) else outcome
