"""Settings: one order of precedence, and errors that name the setting, its value and the cure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import ConfigError
from tolaria.config import EsperConfig, load_config
from tolaria.growth.rollout import resolve

FIELDS = tuple(field.name for field in msgspec.structs.fields(EsperConfig))
SOURCES = ("file", "environment", "override")


@settings(max_examples=30, deadline=None)
@given(given_in=st.sets(st.sampled_from(SOURCES)))
def test_the_argument_wins_over_the_environment_over_the_file_over_the_default(
    given_in: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever subset of the three sources names a setting, the last of them in order wins."""
    file = tmp_path_factory.mktemp("config") / "esper.toml"
    file.write_text("ramp_epochs = 11" if "file" in given_in else "")
    environment = {"ESPER_RAMP_EPOCHS": "12"} if "environment" in given_in else {}
    overrides = {"ramp_epochs": 13} if "override" in given_in else {}
    expected = max((11 + SOURCES.index(source) for source in given_in), default=1)
    assert load_config(file, overrides, environment).ramp_epochs == expected


def test_the_process_s_own_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """ESPER_<FIELD> counts without any file."""
    monkeypatch.setenv("ESPER_MONITOR", "val_acc")
    assert load_config().monitor == "val_acc"


def test_a_finished_config_is_not_changed_by_the_environment() -> None:
    """What was resolved once, arguments above environment, is resolved."""
    once = load_config(None, {"ramp_epochs": 3}, {"ESPER_RAMP_EPOCHS": "5"})
    again = load_config(once, {"rng_seed": 1}, {"ESPER_RAMP_EPOCHS": "5"})
    assert (again.ramp_epochs, again.rng_seed) == (3, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("monitor = 'a'", "a"),
        ("[esper]\nmonitor = 'b'", "b"),
        ("[esper]\nmonitor = 'c'\n[other]\nthing = 1", "c"),
        ("", "val_loss"),
        ("[esper]", "val_loss"),
    ],
)
def test_a_file_may_have_an_esper_table(text: str, expected: str, tmp_path: Path) -> None:
    """With a table [esper] the rest of the file is another's; without it, it is all ours."""
    (tmp_path / "c.toml").write_text(text)
    assert load_config(tmp_path / "c.toml").monitor == expected
    assert load_config(str(tmp_path / "c.toml")).monitor == expected


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("ESPER_RNG_SEED", "7", "rng_seed", 7),
        ("ESPER_VETO", "false", "veto", False),
        ("ESPER_TRIAL_STEPS", "[5, 10]", "trial_steps", (5, 10)),
        ("ESPER_SITES", "conv*", "sites", "conv*"),
        ("ESPER_SITES", '["a", "b"]', "sites", ("a", "b")),
        ("ESPER_RUN_DIR", "2026", "run_dir", "2026"),
        ("ESPER_SCHEDULE", '[[1, "conv", "low_rank"]]', "schedule", ((1, "conv", "low_rank"),)),
        ("ESPER_TELEMETRY", "redis://localhost:1", "telemetry", "redis://localhost:1"),
    ],
)
def test_variables_are_read_as_toml_or_text(
    variable: str, text: str, field: str, value: Any
) -> None:
    """A variable holds what the file would, and text needs no quotes."""
    found = load_config(None, {"policy": "schedule"}, {variable: text})
    assert getattr(found, field) == value


def test_a_variable_that_does_not_fit_is_named() -> None:
    """The error has the variable and its text."""
    with pytest.raises(ConfigError, match="ESPER_RNG_SEED is 'many'"):
        load_config(None, None, {"ESPER_RNG_SEED": "many"})


def test_a_variable_that_should_be_a_list_is_shown_as_one() -> None:
    """The cure is what may be written."""
    with pytest.raises(ConfigError, match=r"ESPER_BLUEPRINTS is 'conv'.*; give a list: \[.conv.\]"):
        load_config(None, None, {"ESPER_BLUEPRINTS": "conv"})
    found = load_config(None, None, {"ESPER_BLUEPRINTS": '["conv"]'})
    assert found.blueprints == ("conv",)


def test_a_variable_that_is_no_setting_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the one that was meant, if one is like it; it is no error, and a finished config asks
    for no variables."""
    monkeypatch.setenv("ESPER_PARAM_BUGET", "3")
    monkeypatch.setenv("ESPER_HOME", "elsewhere")
    monkeypatch.setenv("ESPER_RNG_SEED", "3")
    resolve(resolve(None, {})[0], {})
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "environment variable ESPER_HOME is no setting and changes nothing",
        "environment variable ESPER_PARAM_BUGET is no setting and changes nothing; "
        "did you mean ESPER_PARAM_BUDGET?",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("monitr", "monitor"),
        ("ramp_epoch", "ramp_epochs"),
        ("rng_sed", "rng_seed"),
        ("run-dir", "run_dir"),
    ],
)
@pytest.mark.parametrize("source", ["file", "mapping", "argument"])
def test_an_unknown_setting_is_an_error_with_a_suggestion(
    name: str, meant: str, source: str, tmp_path: Path
) -> None:
    """Wherever it was written, the error names it and the setting that was meant."""
    config: Any = {name: 1}
    overrides: Mapping[str, Any] = {}
    if source == "file":
        config = tmp_path / "c.toml"
        config.write_text(f"{name} = 1")
    elif source == "argument":
        config, overrides = None, {name: 1}
    with pytest.raises(ConfigError) as refused:
        load_config(config, overrides)
    assert repr(name) in str(refused.value)
    assert f"did you mean {meant!r}?" in str(refused.value)


def test_without_a_likeness_all_settings_are_listed() -> None:
    """A name that is like none gets the list of all."""
    with pytest.raises(ConfigError) as refused:
        load_config({"zzz": 1})
    assert all(name in str(refused.value) for name in FIELDS)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("policy", "wild", "heuristic, schedule, random, hold"),
        ("schedule", [[1, "a", "b"]], "policy='schedule'"),
        ("ramp_epochs", 0, "at least 1"),
        ("trial_keep", 0, "at least 1"),
        ("max_candidates", -1, "at least 1"),
        ("keep_checkpoints", 0, "at least 1"),
        ("max_checkpoints_size_bytes", 0, "at least 1"),
        ("keep_archived", -1, "0 or more"),
        ("monitor_mode", "best", "one of auto, min, max"),
        ("num_epochs", 0, "at least 1"),
        ("max_kept_batches", 0, "at least 1"),
        ("max_kept_size_bytes", 0, "at least 1"),
        ("chunks", 0, "at least 1"),
        ("max_sites", 0, "at least 1"),
        ("embargo_epochs", -1, "0 or more"),
        ("max_shared_size_bytes", -1, "0 or more"),
        ("rollout_percentage", 101, "0 to 100"),
        ("grafting", "sudden", "linear, drift_controlled, momentum, adaptive, stability"),
        ("blueprints", "conv", "give a list: ['conv']"),
        ("param_budget", -1, "0 or more"),
        ("trial_steps", [], "rising"),
        ("trial_steps", [0, 5], "rising"),
        ("trial_steps", [5, 5], "rising"),
        ("trial_steps", [10, 5], "rising"),
        ("trial_learning_rate", 0.0, "above 0"),
        ("trial_learning_rate", math.inf, "above 0"),
        ("trial_learning_rate", math.nan, "above 0"),
        ("seed_learning_rate_factor", -1.0, "above 0"),
        ("sites", [], "patterns"),
        ("rng_seed", "seven", "Expected `int`"),
        ("rng_seed", -1, "0 to 9223372036854775807"),
        ("rng_seed", 2**63, "0 to 9223372036854775807"),
        ("rng_seed", -(2**70), "0 to 9223372036854775807"),
        ("rng_seed", None, "Expected `int`"),
        ("veto", 1, "Expected `bool`"),
        ("trial_steps", ["a"], "Expected `int`"),
        ("monitor", 3, "Expected `str`"),
        ("sites", 3, "array"),
        ("run_dir", 3, "null"),
        ("schedule", [[1, "a"]], "length 3"),
    ],
)
def test_a_wrong_value_names_the_setting_the_value_and_what_is_allowed(
    field: str, value: Any, allowed: str
) -> None:
    """All three are in the one sentence that the user sees."""
    with pytest.raises(ConfigError) as refused:
        load_config({field: value})
    message = str(refused.value)
    assert message.startswith(f"setting {field!r} is ")
    assert allowed in message
    shown = repr(value).strip("[]").replace("[", "(").replace("]", ")")
    assert shown in message.replace("[", "(").replace("]", ")")


def test_a_schedule_counts_epochs_from_one() -> None:
    """Epoch 0 is before the first boundary, so nothing can be planted there."""
    with pytest.raises(ConfigError, match="epoch is 1 or later"):
        load_config({"policy": "schedule", "schedule": [[0, "a", "b"]]})


LATE = [9, "a", "conv"]


@pytest.mark.parametrize(
    ("given", "num_epochs", "named"),
    [
        ({"policy": "schedule"}, 10, "empty"),
        ({"policy": "schedule"}, 0, "empty"),
        ({"policy": "schedule", "schedule": [LATE]}, 10, None),
        ({"policy": "schedule", "schedule": [[8, "b", "conv"], LATE]}, 9, "[(9, 'a', 'conv')]"),
        ({"policy": "schedule", "schedule": [LATE]}, 0, None),
        ({"policy": "schedule", "schedule": [LATE], "enabled": False}, 5, None),
        ({}, 1, None),
    ],
)
def test_what_of_a_schedule_can_never_take_effect_is_named(
    given: dict[str, Any], num_epochs: int, named: str | None
) -> None:
    """An empty one, and entries without an epoch to train in, if the number of epochs is known."""
    flaw = load_config(given).schedule_flaw(num_epochs)
    assert (flaw is None) is (named is None)
    assert named is None or named in str(flaw)


@pytest.mark.parametrize("rng_seed", [0, 2**32, 2**63 - 1])
def test_every_rng_seed_in_range_is_taken(rng_seed: int) -> None:
    """Both ends of what is allowed, and what is above 32 bits."""
    assert load_config({"rng_seed": rng_seed}).rng_seed == rng_seed


@pytest.mark.parametrize("field", FIELDS)
def test_every_default_is_valid_and_may_be_written_out(field: str) -> None:
    """What EsperConfig() says can be given back, one setting at a time."""
    default = getattr(EsperConfig(), field)
    assert load_config({field: default}) == EsperConfig()


def test_paths_are_taken_where_text_is_meant(tmp_path: Path) -> None:
    """run_dir may be a pathlib.Path."""
    assert load_config(None, {"run_dir": tmp_path}).run_dir == str(tmp_path)


def test_what_is_no_plain_value_is_refused() -> None:
    """An object of some class is not a setting's value."""
    with pytest.raises(ConfigError, match="plain values"):
        load_config({"monitor": object()})


@pytest.mark.parametrize(
    ("text", "reason"), [("a = [", "cannot be read as TOML"), ("esper = 3", "must be a table")]
)
def test_a_damaged_file_is_named(text: str, reason: str, tmp_path: Path) -> None:
    """The path and what is wrong with it are in the error."""
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as refused:
        load_config(tmp_path / "c.toml")
    assert str(tmp_path / "c.toml") in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist, or is a directory, is an error."""
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_a_config_of_another_type_is_refused() -> None:
    """A number is no config."""
    with pytest.raises(ConfigError, match="config is a int"):
        load_config(3)  # type: ignore[arg-type] # the point of the test
