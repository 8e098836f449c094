"""The networks that the built-in tasks start from: too small on purpose, so that growth can pay."""

from __future__ import annotations

from torch import nn


def digits_host(*, kernel_size: int = 1) -> nn.Sequential:
    """Map (n, 1, 8, 8) to (n, 10); 954 parameters.

    With `kernel_size` 1 no unit sees two neighbouring pixels at once; with 3 they all do.
    """
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size, padding=padding),
        nn.ReLU(),
        nn.Conv2d(16, 16, kernel_size, padding=padding),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def mnist1d_host() -> nn.Sequential:
    """Map (n, 1, 40) to (n, 10); blind to neighbouring values, as the digits host is."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 1),
        nn.ReLU(),
        nn.Conv1d(16, 16, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def fashion_host() -> nn.Sequential:
    """Map (n, 1, 28, 28) to (n, 10); an ordinary small CNN of 6,274 parameters."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in ((1, 8), (8, 16), (16, 32)):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
