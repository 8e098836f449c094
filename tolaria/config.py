"""Settings: one frozen struct, validated once; argument > environment > file > default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from leyline import ConfigError
from tamiyo import policy_catalogue
from tolaria.settings_sources import field_first, gather, plain

PUBLISHERS: Final = ("thread", "process")
RATE_RULES: Final = ("constant", "variance_transfer")
_MONITOR_MODES: Final = ("auto", "min", "max")
_LARGEST_RNG_SEED: Final = 2**63 - 1
_AT_LEAST_ONE: Final = (
    "num_epochs",
    "max_sites",
    "chunks",
    "ramp_epochs",
    "boundary_every_steps",
    "trial_keep",
    "trial_batch_pieces",
    "max_candidates",
    "max_kept_batches",
    "max_kept_size_bytes",
    "keep_checkpoints",
    "max_checkpoints_size_bytes",
    "memory_limit_bytes",
    "max_rollbacks",
    "telemetry_bytes_per_s",
)


class EsperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of a run, with the default that suits most."""

    enabled: bool = True
    """Whether anything may grow; False does as policy="hold" does, whatever the policy."""
    rollout_percentage: int = 100
    """The share of sites that may grow, chosen by their names and the run's id; the others are
    the control arm and never do."""
    monitor: str = "val_loss"
    """The metric that reports speak of, and by which the best checkpoint is kept."""
    monitor_mode: str = "auto"
    """"min" if less of it is better, "max" if more is; "auto" tells by its name."""
    policy: str = "heuristic"
    """"heuristic" grows by races of trials, "schedule" as `schedule` says, "random" by chance, as
    a control, "hold" never; or a policy of your own, by its name."""
    policy_options: dict[str, Any] = {}
    """Options of that policy, by name; they are in docs/policies.md."""
    schedule: tuple[tuple[int, str, str], ...] = ()
    """(epoch, site name, blueprint name): plant at the boundary that ends that 1-based epoch. What
    no epoch is left for is named in a warning at the start."""
    veto: bool = True
    """Whether the counterfactual may cull a grafted seed."""
    sites: str | tuple[str, ...] = "auto"
    """"auto", or glob patterns on site names."""
    exclude_sites: tuple[str, ...] = ()
    """Glob patterns on names of sites that are left out of those."""
    max_sites: int | None = None
    """Sites that are used at most, taken at an even stride over the depth of the model."""
    chunks: int = 1
    """Equal parts that the channels of every site are cut into, where they can be; each part is a
    place for a seed of its own, and those that are built alike run in one kernel."""
    blueprints: tuple[str, ...] = ()
    """Names of the blueprints that may race; empty: every one that fits."""
    param_budget: int | None = None
    """Parameters growth may add in all; None: as many as the host has, and at least 16,384. Races
    keep to it; a schedule plants what it names, whatever the size."""
    telemetry: str = "embedded"
    """"embedded", "memory", "off", or a redis://, rediss:// or unix:// URL."""
    publisher: str = "thread"
    """Who takes events to the server: a "thread" of the trainer, or a "process" beside it, which
    takes less of its time when there are very many events."""
    telemetry_bytes_per_s: int | None = None
    """Most that is sent to the server, on average over a second; None: no limit."""
    audit: bool = False
    """Whether a process beside the run writes every event to audit.db in its directory;
    `esper events` writes it later too, from what is left by then."""
    metrics_port: int | None = None
    """Port of 127.0.0.1 on which the run's numbers are served to Prometheus under /metrics; 0: any
    that is free, which the log tells; None: not served."""
    open_telemetry: bool = False
    """Whether the run's numbers are shown to OpenTelemetry, on the MeterProvider that the process
    has set; needs the extra "otel"."""
    run_dir: str | None = None
    """The run's directory; None: a fresh dated one under runs/."""
    rng_seed: int = 0
    """Seeds everything that growth draws, 0 to 2**63 - 1; the run's own random streams are left
    alone."""
    num_epochs: int | None = None
    """Epochs the run will have; Lightning's max_epochs where None."""
    boundary_every_steps: int | None = None
    """Training steps after which a boundary is passed within an epoch too; None: at the ends of
    epochs only. With it every span that is counted in epochs, `num_epochs` among them, is counted
    in boundaries instead."""
    ramp_epochs: int = 1
    """Epochs in which alpha goes from 0 to 1 if nothing disturbs it."""
    grafting: str = "linear"
    """How alpha rises: "linear", "drift_controlled" (holds while the host's weights move fast),
    "momentum" (faster while the loss falls), "adaptive" (whichever of these suits) or "stability"
    (checks the loss, and goes back)."""
    grafting_options: dict[str, float] = {}
    """Options of that strategy, by name; they are in kasmina/grafting/<strategy>.py."""
    adaptive_grafting: bool = True
    """Feature flag; False: "adaptive" grafting is linear."""
    trial_steps: tuple[int, ...] = (50, 100, 200)
    """Steps a candidate is trained for in all, at the end of each rung of a race."""
    trial_keep: int = 16
    """Candidates that go on after the first rung, of few at most half of them; after each later
    rung a quarter as many."""
    trial_batch_pieces: int = 2
    """Pieces of eight rows or more that a training batch is cut into for trials, a step for each:
    so a race costs half as much and chooses no worse."""
    trial_control: bool = False
    """Whether the host itself is trained as far beside the last candidates of a race: the verdict
    then says what it gained, which the policies' `host_gain_share` goes by."""
    max_candidates: int = 32
    """Candidates in one race."""
    trial_learning_rate: float | None = None
    """Learning rate of trials; None: that of the host's group where it is an Adam, else 3e-3."""
    embargo_epochs: int = 15
    """Epochs for which the place and blueprint of a culled seed stay empty."""
    seed_learning_rate_factor: float = 1.0
    """Learning rate of a grafted seed, as a multiple of its host group's."""
    seed_warmup_steps: int = 0
    """Training steps from a graft in which that rate rises to the full one, linearly."""
    seed_rate_rule: str = "constant"
    """"constant": that multiple; "variance_transfer": times the norm of the seed's parameters by
    that of its site's, taken whenever the seed starts to train with the host."""
    max_kept_batches: int = 64
    """Training and held-out batches kept for trials, each."""
    max_kept_size_bytes: int = 256 * 1024 * 1024
    """Size of the batches kept for trials, for training and held-out ones each."""
    max_shared_size_bytes: int = 256 * 1024 * 1024
    """Activations that a race may keep, and again those of a pass of several candidates; 0 shares
    nothing."""
    guard_every_step: bool = False
    """Whether the state is kept after every step, so that a bad one is undone and its batch skipped
    exactly; costs a copy of model and optimizer, and on a GPU a wait, per step."""
    spike_deviations: float = 50.0
    """Robust standard deviations above the median of the last values at which a loss or gradient
    norm, three times in a row, or the monitored metric rolls a graft back if it also is far above
    what it was at first; 0: never. Nothing finite rolls back a run in which no graft has still to
    settle."""
    memory_limit_bytes: int | None = None
    """Memory in use, of the GPUs or else of the process, above which a graft that has still to
    settle is rolled back at the next boundary; None: no limit."""
    max_rollbacks: int | None = None
    """Rollbacks within ten boundaries at which the run ends, with a checkpoint to go on from; None:
    it never ends for rollbacks of grafts."""
    checkpoint: bool = True
    """Whether a checkpoint is committed after every boundary."""
    async_checkpoints: bool = True
    """Whether a checkpoint is copied to memory and written while training goes on; this keeps one
    copy of the model and its optimizers in host memory. False waits for the disk."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept to resume from."""
    keep_archived: int = 1
    """Older ones that are kept too, in archive/: the last so many that were the best by `monitor`
    when they were written, and the last so many from which a graft began."""
    max_checkpoints_size_bytes: int | None = None
    """Size of all checkpoints together, above which the oldest and least important are removed, but
    never the newest; None: no limit."""
    seed_checkpoints: bool = True
    """Whether every transition of a seed leaves a record in the run directory's seeds.bin."""

    def __post_init__(self) -> None:
        """Check what types alone cannot say."""
        _require(
            self.monitor_mode in _MONITOR_MODES,
            "monitor_mode",
            self.monitor_mode,
            f"one of {', '.join(_MONITOR_MODES)}",
        )
        self._check_policy()
        self._check_telemetry()
        _require(
            not (self.schedule and self.policy != "schedule"),
            "schedule",
            self.schedule,
            "given together with policy='schedule'",
        )
        for field in _AT_LEAST_ONE:
            value = getattr(self, field)
            _require(value is None or value >= 1, field, value, "at least 1")
        for field in ("embargo_epochs", "param_budget", "max_shared_size_bytes", "keep_archived"):
            value = getattr(self, field)
            _require(value is None or value >= 0, field, value, "0 or more")
        for field in ("trial_learning_rate", "seed_learning_rate_factor"):
            value = getattr(self, field)
            _require(value is None or 0.0 < value < math.inf, field, value, "above 0 and finite")
        _require(
            self.seed_warmup_steps >= 0, "seed_warmup_steps", self.seed_warmup_steps, "0 or more"
        )
        deviations = self.spike_deviations
        _require(
            0.0 <= deviations < math.inf,
            "spike_deviations",
            deviations,
            "0 for never, or above 0 and finite",
        )
        rule = self.seed_rate_rule
        _require(rule in RATE_RULES, "seed_rate_rule", rule, f"one of {', '.join(RATE_RULES)}")
        percentage = self.rollout_percentage
        _require(0 <= percentage <= 100, "rollout_percentage", percentage, "0 to 100")
        largest = _LARGEST_RNG_SEED
        _require(0 <= self.rng_seed <= largest, "rng_seed", self.rng_seed, f"0 to {largest}")
        _require(bool(self.sites), "sites", self.sites, "'auto' or patterns of site names")
        if self.grafting != "linear" or self.grafting_options:
            # Imported here, because kasmina brings torch, for which `--help` must not wait.
            from kasmina import GraftingRecipe

            GraftingRecipe(self.grafting, self.grafting_options)
        steps = self.trial_steps
        _require(
            bool(steps) and all(s >= 1 for s in steps) and list(steps) == sorted(set(steps)),
            "trial_steps",
            steps,
            "rising step counts, such as [50, 200]",
        )
        _require(
            all(epoch >= 1 for epoch, _, _ in self.schedule),
            "schedule",
            self.schedule,
            "entries whose epoch is 1 or later",
        )

    def _check_policy(self) -> None:
        kinds = policy_catalogue.by_name
        if self.policy in kinds:
            kind = kinds[self.policy]
        else:  # imported here, because it brings torch, for which `--help` must not wait
            from tolaria.growth.policy_kinds import policy_kind

            kind = policy_kind(self.policy)
        kind.rules_of(self.policy_options, {})
        asked = kind.built_in and self.policy_options.get("host_gain_share")
        _require(
            self.trial_control or not asked,
            "trial_control",
            self.trial_control,
            "true where policy_options has a host_gain_share, which is a share of that gain",
        )

    def _check_telemetry(self) -> None:
        audited = not self.audit or self.telemetry != "off"
        _require(audited, "audit", self.audit, "false when telemetry is off")
        publisher = self.publisher
        _require(publisher in PUBLISHERS, "publisher", publisher, f"one of {', '.join(PUBLISHERS)}")
        port = self.metrics_port
        _require(port is None or 0 <= port <= 65_535, "metrics_port", port, "0 to 65535")
        _require(
            not self.open_telemetry or _has_open_telemetry(),
            "open_telemetry",
            self.open_telemetry,
            "false, or OpenTelemetry installed: pip install 'esper-morphogenesis[otel]'",
        )

    @property
    def grows(self) -> bool:
        """Whether anything may grow: not when held or disabled."""
        return self.enabled and self.policy != "hold"

    def schedule_flaw(self, num_epochs: int) -> str | None:
        """What of the schedule can never take effect, in one line; None if all can.

        Args:
            num_epochs: epochs the run will have; 0 if that is not known.
        """
        if not self.grows or self.policy != "schedule":
            return None
        if not self.schedule:
            return "the schedule is empty, so nothing will grow; give entries or policy='hold'"
        late = [entry for entry in self.schedule if entry[0] > num_epochs - 1]
        if not late or not num_epochs:
            return None
        return (
            f"schedule entries {late} can never take effect: what is planted after epoch "
            f"{num_epochs - 1} of {num_epochs} has no epoch to train in; name earlier epochs"
        )


def _require(condition: bool, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"setting {field!r} is {value!r}; it must be {allowed}")


def _has_open_telemetry() -> bool:
    try:
        import opentelemetry.metrics  # noqa: F401 -- late: few runs ask for it
    except ImportError:
        return False
    return True


class Resolved(NamedTuple):
    """Settings, and where each came from."""

    config: EsperConfig
    origins: dict[str, str]
    """By setting: "argument", the variable ESPER_<FIELD>, or what holds the config; one that is
    not here has its default."""


def load_config(
    config: str | Path | Mapping[str, Any] | EsperConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> EsperConfig:
    """Resolve settings: overrides, then ESPER_* variables, then the config, then defaults.

    Args:
        config: a TOML file (its `[esper]` table if it has one), a mapping, or a finished config,
            which the environment does not change any more.
        overrides: single fields; they win.
        environment: where ESPER_<FIELD> is looked up; the process's own if None.

    Raises:
        ConfigError: an unknown key, a wrong type or value, an unreadable file.
    """
    return resolve(config, overrides, environment).config


def resolve(
    config: str | Path | Mapping[str, Any] | EsperConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    where: str = "the config",
) -> Resolved:
    """Do as `load_config` does, and tell where each setting came from.

    Args:
        config, overrides, environment: as for `load_config`.
        where: what holds the config, unless it is a file.
    """
    values, origins = gather(config, overrides or {}, environment, EsperConfig, where)
    try:
        settled = msgspec.convert(msgspec.to_builtins(values, enc_hook=plain), EsperConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(field_first(str(error), values)) from error
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; give plain values") from error
    return Resolved(settled, origins)
