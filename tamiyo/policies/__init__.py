"""The policies there are. `catalogue` holds code, not state of a run, so it is one per process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tamiyo.policies.built_in import BUILT_IN
from tamiyo.policies.definition import SHARED as SHARED
from tamiyo.policies.definition import NoRules
from tamiyo.policies.definition import PolicyKind as PolicyKind
from tamiyo.policies.registry import PolicyCatalogue as PolicyCatalogue
from tamiyo.policy import Policy

ENTRY_POINT_GROUP: Final = "esper.policies"
"""Where installed packages offer policies: `name = "package.module:factory"`."""

policy_catalogue: Final = PolicyCatalogue(ENTRY_POINT_GROUP)
"""The policies that a config may name; plug-ins are added once an unknown name asks for them."""
for _kind in BUILT_IN:
    policy_catalogue.register(_kind)


def register_policy(
    name: str, factory: Callable[[Any], Policy], rules: type[Any] = NoRules
) -> None:
    """Add a policy of your own under a name that configs can use.

    Args:
        name: an identifier that is not a built-in policy's.
        factory: called with an instance of `rules`; returns the policy of one run.
        rules: a frozen dataclass whose fields all have defaults: the policy's options.

    Raises:
        PolicyError: the name is a built-in one or no identifier, or the rules are not as said.
    """
    policy_catalogue.register(PolicyKind(name, factory, rules))
