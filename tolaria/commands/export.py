"""`esper export`: the grown network of a run, for use without Esper."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import kasmina
from leyline import ExportError, RunError
from tolaria.commands.building import build
from tolaria.commands.runs import newest_checkpoint, read_stored_spec
from tolaria.disk.checkpoint import load
from tolaria.disk.run import RunDirectory
from tolaria.show.output import Output


def export_run(path: Path, output: Path, *, seeds_only: bool = False) -> None:
    """Write the network of a run's newest checkpoint; the file's ending chooses the format.

    Args:
        seeds_only: whether only the seeds are written, for `kasmina.load` on a fresh host.

    Raises:
        ExportError: another ending, torch.export refuses the model, or there are no seeds.
        RunError, CheckpointError: there is nothing to export.
    """
    if output.suffix not in (".pt2", ".safetensors"):
        raise ExportError(f"{output} ends in {output.suffix!r}; choose .pt2 or .safetensors")
    if seeds_only and output.suffix != ".safetensors":
        raise ExportError(f"{output} ends in {output.suffix!r}; seeds alone go to .safetensors")
    if not output.absolute().parent.is_dir():
        raise ExportError(f"directory {output.parent} does not exist; create it first")
    run = RunDirectory.open(path, lock=False)
    stored = read_stored_spec(run.path)
    checkpoint = newest_checkpoint(run)
    module, _, _ = build(stored.spec, stored.rng_seed)
    kasmina.load(module, checkpoint)
    console = Output()
    partial = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        if seeds_only:
            kasmina.save_seeds(module, partial)
            said = f"the seeds alone; kasmina.load(host, {str(output)!r}) puts them on a host"
        elif output.suffix == ".safetensors":
            kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            safetensors.torch.save_file(kept, partial)
            said = f"{len(kept)} tensors; kasmina.load(model, {str(output)!r}) grows a host to fit"
        else:
            said = _write_program(module, _example(load(checkpoint)), partial)
        partial.replace(output)
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    console.print(f"{output}: {said}", soft_wrap=True)


def _example(state: Mapping[str, Any]) -> tuple[Any, ...]:
    for callback in state.get("callbacks", {}).values():
        if isinstance(callback, Mapping) and callback.get("example"):
            return tuple(callback["example"])
    raise ExportError(
        "the run never called the model's forward with positional tensors, so torch.export has no "
        "example of a call; export to .safetensors instead"
    )


def _write_program(module: nn.Module, example: tuple[Any, ...], path: Path) -> str:
    """Write a torch.export program with a dynamic batch, or a fixed one where that is refused."""
    plain = kasmina.export(module).eval()
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} if isinstance(a, Tensor) and a.ndim else None for a in example)
    with torch.no_grad():
        program, refusal = _program(plain, example, dynamic)
        said = "any batch size"
        if program is None:
            program, refusal = _program(plain, example, None)
            said = (
                f"fixed to inputs of {[tuple(a.shape) for a in example if isinstance(a, Tensor)]}"
            )
        if program is None:
            raise ExportError(
                f"torch.export refuses this model: {refusal}; export to .safetensors instead"
            )
        difference = _difference(program.module()(*example), plain(*example))
    torch.export.save(program, path)
    return f"inference only, {said}; {difference}; torch.export.load runs it"


def _difference(exported: Any, live: Any) -> str:
    """How far the program's outputs on the example are from the live model's, in words."""
    pairs = list(zip(kasmina.tensors_in(exported), kasmina.tensors_in(live), strict=True))
    if all(torch.equal(one, other) for one, other in pairs):
        return "outputs equal the live model's"
    largest = max(float((one - other).abs().max()) for one, other in pairs if one.numel())
    return f"outputs differ from the live model's by at most {largest:.1e}"


def _program(
    plain: nn.Module, example: tuple[Any, ...], dynamic: Any
) -> tuple[torch.export.ExportedProgram | None, str]:
    try:
        return torch.export.export(plain, example, dynamic_shapes=dynamic), ""
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        return None, next((line for line in str(error).splitlines() if line.strip()), "")
