"""results.json and what it is compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.harness import Peer, Quantiles, Row, Target
from bench.harness.against import changes
from bench.harness.results import count, read, results
from bench.harness.table import number, ratio_words, target_words
from leyline import ConfigError


def row(name: str, ratio: float | None, most: float | None = 1.0, **settings: Any) -> Row:
    peer = None if ratio is None else Peer("it", ratio, 2.0, (0.9, 1.1), most)
    return Row(id=name, claim=name, unit="us", ours=Quantiles(1.0, 2.0), peer=peer, **settings)


ROWS = (
    row("a", 0.5),
    row("b", 2.0),
    row("c", None, target=Target(p95=1.5)),
    row("d", 3.0, None),
    Row(id="e", claim="e", unit="ms", target=Target(1.0), missing="no GPU"),
)


def test_goals_are_those_rows_that_have_one(tmp_path: Path) -> None:
    """Every goal with its verdict and the figure that decides it, through JSON and back."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results(ROWS, is_quick=False)))
    found = read(path)
    assert [(goal["id"], goal["verdict"]) for goal in found["goals"]] == [
        ("a", "met"),
        ("b", "missed"),
        ("c", "missed"),
        ("e", "not measured"),
    ]
    assert [goal["figure"] for goal in found["goals"]] == [
        "1.00 us, 0.50 x it",
        "1.00 us, 2.00 x it",
        "2.00 us",
        "no GPU",
    ]
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["torch"]
    assert count(ROWS) == "4 goals: 1 met, 2 missed, 1 not measured; 1 rows without a goal"


def test_changes_are_told_by_ratios_alone() -> None:
    """Absolute times may double; a ratio beyond both noise bands is a change, one within is not."""
    before = results(
        [row("a", 1.0), row("b", 1.0), row("c", 1.0), row("gone", 1.0)], is_quick=False
    )
    after = results([row("a", 1.2), row("b", 1.3), row("c", 0.7), row("new", 9.0)], is_quick=True)
    for each in after["rows"]:
        each["ours"]["p50"] *= 2
    found = {change.id: change.words for change in changes(before, after)}
    assert found == {"a": "as before", "b": "slower", "c": "faster"}


def test_rows_without_a_ratio_are_not_compared() -> None:
    """A row without a peer, or whose ratio is 0, tells nothing on another machine."""
    both = results([row("a", None), row("b", 0.0)], is_quick=False)
    assert list(changes(both, both)) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "\x00"])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    """What is no results.json of this format is named, and what to do."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.json"):
        read(path)


def test_figures_are_three_digits_and_no_exponent() -> None:
    """As a reader wants them."""
    shown = [number(value) for value in (0, 0.000123, 0.0123, 1.2345, 12.345, 123.4, 123456.7)]
    assert shown == ["0", "0.000123", "0.0123", "1.23", "12.3", "123", "123,457"]
    assert [ratio_words(r) for r in (0.0, 0.01, 0.02, 0.5, 30.0)] == [
        "0.00",
        "1/100",
        "1/50",
        "0.50",
        "30.00",
    ]
    assert target_words(Target(1.0, 2.0)) == "p50 <= 1 / p95 <= 2"
    assert target_words(Target(p50=1234.56)) == "<= 1,235"
