"""The orchestrator: owns the run. `EsperCallback` for Lightning, `Orchestrator` for any loop."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tolaria.boundary.report import BoundaryReport as BoundaryReport
    from tolaria.config import EsperConfig as EsperConfig
    from tolaria.lightning.callback import EsperCallback as EsperCallback
    from tolaria.lightning.loading import load_from_checkpoint as load_from_checkpoint
    from tolaria.orchestrator import Orchestrator as Orchestrator

# torch and lightning take seconds to import; `esper --help` must not wait for them.
_HOMES = {
    "BoundaryReport": "tolaria.boundary.report",
    "EsperCallback": "tolaria.lightning.callback",
    "EsperConfig": "tolaria.config",
    "Orchestrator": "tolaria.orchestrator",
    "load_from_checkpoint": "tolaria.lightning.loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tolaria' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
