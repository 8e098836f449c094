"""MNIST-1D as its authors' generator makes it, in any number, with numpy alone.

S. Greydanus and D. Kobak, "Scaling Down Deep Learning with MNIST-1D",
https://arxiv.org/abs/2011.14439; the templates are theirs (Apache-2.0). Random numbers are drawn
in the order of their package, so that rng_seed 42 gives the published set.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

STANDARD_RNG_SEED: Final = 42
NUM_STANDARD: Final = 5_000

_TEMPLATES: Final = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
_MIN_PADDING: Final = 36
_MAX_PADDING: Final = 60
_SCALE: Final = 0.4
_MAX_TRANSLATION: Final = 48
_CORRELATED_NOISE: Final = 0.25
_NOISE: Final = 0.02
_SHEAR: Final = 0.75
_LENGTH: Final = 40
_SIGMA: Final = 2.0
_RADIUS: Final = 8
"""Of the smoothing kernel: four of its deviations."""

Signals = NDArray[np.float64]


def signals(num_examples: int, rng_seed: int) -> tuple[Signals, NDArray[np.int64]]:
    """Make signals of shape (num_examples, 40), not normalised, and labels 0 to 9, shuffled."""
    # RandomState, because its stream never changes with numpy.
    draw = np.random.RandomState(rng_seed)
    templates = _TEMPLATES - _TEMPLATES.mean(1, keepdims=True)
    templates /= templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6
    labels = np.repeat(np.arange(len(templates)), num_examples // len(templates))
    made = np.stack([_signal(templates[label], draw) for label in labels])
    order = draw.permutation(len(labels))
    return made[order], labels[order]


def _signal(template: Signals, draw: np.random.RandomState) -> Signals:
    """One template padded, scaled, shifted, made noisy and sheared."""
    padding = _MIN_PADDING + int(draw.rand() * (_MAX_PADDING - _MIN_PADDING + 1))
    # The tiny offset tells the template's own zeros from padding, where alone the noise goes.
    signal = np.concatenate([template + 1e-8, np.zeros(padding)])
    signal = _resampled(signal, len(template) + _MAX_PADDING)
    signal *= 1 + _SCALE * (draw.rand() - 0.5)
    signal = np.roll(signal, draw.choice(_MAX_TRANSLATION))
    noise = _smoothed(_CORRELATED_NOISE * draw.randn(len(signal)))
    signal = np.where(signal != 0, signal, noise) + _NOISE * draw.randn(len(signal))
    slope = _SHEAR * (draw.rand() - 0.5)
    return _resampled(signal - slope * np.linspace(-0.5, 0.5, len(signal)), _LENGTH)


def _resampled(signal: Signals, length: int) -> Signals:
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(signal)), signal)


def _smoothed(noise: Signals) -> Signals:
    """Convolve with a Gaussian; beyond its ends the noise is mirrored."""
    kernel = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    return np.convolve(np.pad(noise, _RADIUS, "symmetric"), kernel / kernel.sum(), "valid")
