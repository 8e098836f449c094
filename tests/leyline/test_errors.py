"""The errors: one root, ValueError leaves."""

from __future__ import annotations

import pytest

import leyline
from leyline import EsperError, LifecycleError, errors

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_one_root(kind: type[Exception]) -> None:
    """Whoever catches EsperError catches them all; every one but the root is a ValueError."""
    assert issubclass(kind, EsperError)
    assert kind is EsperError or issubclass(kind, ValueError)
    assert getattr(leyline, kind.__name__) is kind


def test_lifecycle_error_says_everything() -> None:
    """It names the seed, where it was, what was asked, why not, and what is allowed."""
    error = LifecycleError("a/0", "TRAINING", "FOSSILIZED", ("GRAFTING", "CULLED"), "no such way")
    assert str(error) == (
        "seed 'a/0' is TRAINING and cannot become FOSSILIZED: no such way; "
        "TRAINING leaves to GRAFTING, CULLED"
    )
    assert (error.seed, error.was, error.asked) == ("a/0", "TRAINING", "FOSSILIZED")
    assert error.allowed == ("GRAFTING", "CULLED")
    assert error.reason == "no such way"


def test_lifecycle_error_at_an_end() -> None:
    """A stage that leaves to nothing is called an end."""
    error = LifecycleError("a/0", "FOSSILIZED", "CULLED", (), "no such way")
    assert "FOSSILIZED leaves to nothing: it is an end" in str(error)
