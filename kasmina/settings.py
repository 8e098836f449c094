"""Settings of the whole process that a guest's code could leave changed: read, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch
import torch.utils._device
from torch.nn.modules import module as modules

_HOOKS: Final = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_hooks_always_called",
    "_global_forward_hooks_with_kwargs",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_buffer_registration_hooks",
    "_global_module_registration_hooks",
    "_global_parameter_registration_hooks",
)
_DEVICE_TYPES: Final = ("cpu", "cuda")


class _Setting(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _read_autocast() -> Any:
    states = [(torch.is_autocast_enabled(t), torch.get_autocast_dtype(t)) for t in _DEVICE_TYPES]
    return states, torch.is_autocast_cache_enabled()


def _write_autocast(value: Any) -> None:
    states, cached = value
    for device_type, (enabled, dtype) in zip(_DEVICE_TYPES, states, strict=True):
        torch.set_autocast_enabled(device_type, enabled)
        torch.set_autocast_dtype(device_type, dtype)
    torch.set_autocast_cache_enabled(cached)


def _read_cudnn() -> Any:
    flags = torch.backends.cudnn
    return flags.enabled, flags.benchmark, flags.deterministic


def _write_cudnn(value: Any) -> None:
    flags: Any = torch.backends.cudnn
    flags.enabled, flags.benchmark, flags.deterministic = value


def _read_hooks() -> Any:
    held = [dict(getattr(modules, name)) for name in _HOOKS]
    return held, modules._global_is_full_backward_hook


def _write_hooks(value: Any) -> None:
    held, modules._global_is_full_backward_hook = value
    for name, hooks in zip(_HOOKS, held, strict=True):
        getattr(modules, name).clear()
        getattr(modules, name).update(hooks)


def _read_saved_tensor_hooks() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _write_saved_tensor_hooks(value: Any) -> None:
    while _read_saved_tensor_hooks() not in (value, None):
        torch._C._autograd._pop_saved_tensors_default_hooks()


_SETTINGS: Final = (
    _Setting("the gradient mode", torch.is_grad_enabled, torch._C._set_grad_enabled),
    _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting(
        "the default device",
        lambda: torch.utils._device.CURRENT_DEVICE,
        torch.set_default_device,
    ),
    _Setting("autocast", _read_autocast, _write_autocast),
    _Setting(
        "the deterministic mode",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    _Setting("the cudnn flags", _read_cudnn, _write_cudnn),
    _Setting(
        "the precision of matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Setting(
        "the anomaly mode",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
    ),
    _Setting("the hooks of every module", _read_hooks, _write_hooks),
    _Setting("the hooks of saved tensors", _read_saved_tensor_hooks, _write_saved_tensor_hooks),
)


def read_settings() -> list[Any]:
    """The settings as they are now, for `restore_settings`."""
    return [setting.read() for setting in _SETTINGS]


def restore_settings(before: list[Any]) -> list[str]:
    """Put the settings back to what they were.

    Returns:
        Names of those that had changed.
    """
    changed = []
    for setting, value in zip(_SETTINGS, before, strict=True):
        if setting.read() != value:
            setting.write(value)
            changed.append(setting.name)
    return changed


@contextmanager
def kept_settings() -> Iterator[list[str]]:
    """Run a block and put the settings back; the list then names those that it had changed."""
    before, changed = read_settings(), list[str]()
    try:
        yield changed
    finally:
        changed += restore_settings(before)
