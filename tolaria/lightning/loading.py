"""Loading a grown Lightning checkpoint into a class that knows nothing of seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning.pytorch as pl

from kasmina.structure import match_structure
from leyline import CheckpointError

Module = TypeVar("Module", bound=pl.LightningModule)


def load_from_checkpoint(module_class: type[Module], path: str | Path, **kwargs: Any) -> Module:
    """As `module_class.load_from_checkpoint(path, **kwargs)`, also for a model that had grown.

    Args:
        module_class: the class that was trained, of either Lightning.
        path: a Lightning `.ckpt`, grown or not.
        kwargs: what Lightning's own method takes: `map_location`, `strict`, `weights_only`, and
            arguments of the class that are not in the checkpoint.

    Returns:
        An instance of the class with the seeds and weights of the checkpoint.

    Raises:
        CheckpointError, SiteError, BlueprintError: its seeds are damaged, or do not fit the class;
            or the path is a directory.
        OSError, RuntimeError: as Lightning's own method.
    """
    if Path(path).is_dir():
        raise CheckpointError(
            f"{path} is a directory, and load_from_checkpoint takes Lightning's own .ckpt file; "
            "give a directory to trainer.fit or trainer.test as ckpt_path"
        )

    def grow_and_load(self: Any, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        match_structure(self, state_dict)
        return super(growing, self).load_state_dict(state_dict, *args, **options)

    names = {name: getattr(module_class, name) for name in ("__module__", "__qualname__")}
    growing: Any = type(
        module_class.__name__, (module_class,), {**names, "load_state_dict": grow_and_load}
    )
    model = growing.load_from_checkpoint(path, **kwargs)
    model.__class__ = module_class
    return cast(Module, model)
