"""Every public error. Each names the thing, what it was, what was allowed and what to do next."""

from __future__ import annotations


class EsperError(Exception):
    """Root of all errors that Esper raises on purpose."""


class ContractError(EsperError, ValueError):
    """A message that the codec refuses: damaged, too large, of another version or malformed."""


class VersionError(ContractError):
    """A message of another version of the contract."""


class ConfigError(EsperError, ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


class LifecycleError(EsperError, ValueError):
    """A transition that the lifecycle table does not allow now; nothing was changed."""

    def __init__(self, seed: str, was: str, asked: str, allowed: tuple[str, ...], reason: str):
        self.seed = seed
        self.was = was
        self.asked = asked
        self.allowed = allowed
        self.reason = reason
        leaves_to = ", ".join(allowed) or "nothing: it is an end"
        super().__init__(
            f"seed {seed!r} is {was} and cannot become {asked}: {reason}; "
            f"{was} leaves to {leaves_to}"
        )


class OwnerError(EsperError, ValueError):
    """A state table that a thread other than its owner tried to change; nothing was changed."""


class SiteError(EsperError, ValueError):
    """A submodule that cannot carry a seed, or a site name that does not exist."""


class BlueprintError(EsperError, ValueError):
    """A blueprint that is unknown, does not fit a site, or breaks its promise at birth."""


class PolicyError(EsperError, ValueError):
    """A policy that cannot be built or kept, or that answers with what is no decision."""


class TrialError(EsperError, ValueError):
    """A trial that cannot be run on this model, with the reason."""


class ExportError(EsperError, ValueError):
    """A grown network that cannot be written in the format asked for."""


class RunError(EsperError, ValueError):
    """A run directory that is missing, damaged or not what the command needs."""


class RunLockedError(RunError):
    """A run directory that another live process holds."""


class CheckpointError(RunError):
    """A checkpoint that is damaged or does not fit the model."""


class NonFiniteError(EsperError, ValueError):
    """A loss that is NaN or infinite and that no seed can be blamed for."""


class RiskError(EsperError, ValueError):
    """A run that has been ended because its risk is critical; its checkpoint is there to go on."""


class RollbackError(EsperError, ValueError):
    """A state that cannot go back as a whole: the run is no longer built as it was then."""


class BusError(EsperError, ValueError):
    """A telemetry URL that is malformed or a server that cannot be started."""
