"""The zoo: whatever a body does, the host trains on as it would without it, bit for bit."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kasmina.settings import read_settings
from kasmina.sites.shape import SiteShape
from kasmina.slots.finite_check import FiniteCheck
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed
from tests.kasmina.growing import bits, rng_streams
from tests.kasmina.zoo import HARMLESS, HOARDS, STRIKE, WIDTH, ZOO, Hostile, raises
from tests.reliability.plugin import Faults

NUM_STEPS, NUM_STEPS_TO_HOARD = 6, 20
FAULTING = {name: kind for name, kind in ZOO.items() if kind.fault}
ALPHAS = {"ramp": 0.125, "full": 1.0}
every_alpha = pytest.mark.parametrize("rise", ALPHAS.values(), ids=ALPHAS)
pytestmark = pytest.mark.filterwarnings("ignore:noisy")


class Host(nn.Module):
    """Running statistics, dropout and weights below and above the site."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.site = nn.Linear(6, WIDTH)
        self.act = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.act(self.site(self.stem(x).tanh())))))


class Run:
    """A small training run whose data come from all three global random streams."""

    def __init__(self, body: Hostile | None = None, *, rise: float = 0.0, off_from: int = 99):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        self.model = Host()
        self.host = dict(self.model.named_parameters())
        self.rise, self.off_from = rise, off_from
        self.losses: list[str] = []
        self.fault_step = 0
        self.seed: GraftedSeed | None = None
        if body is not None:
            shape = SiteShape((16, WIDTH), -1)
            self.seed = GraftedSeed(body, seed="site/0", blueprint="zoo", shape=shape)
            attach_seed("site", self.model.site, self.seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def train(self, num_steps: int) -> Run:
        for step in range(1, num_steps + 1):
            if self.seed is not None:
                alpha = 0.0 if step >= self.off_from else min(1.0, self.rise * step)
                self.seed.blend(alpha)
            x = torch.randn(16, 5) * np.random.rand() + random.uniform(0, 1)  # noqa: S311 -- no secret
            loss = nn.functional.cross_entropy(self.model(x), torch.randint(3, (16,)))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(float(loss.detach()).hex())
            if self.seed is not None and self.seed.fault is not None:
                self.fault_step = self.fault_step or step
        self.picture = self._picture()
        return self

    def _picture(self) -> dict[str, Any]:
        """All of the host, its optimizer state, its losses, the streams and torch's settings."""
        state = self.optimizer.state
        tensors = self.host | dict(self.model.named_buffers())
        return {
            "host": {n: bits(t) for n, t in tensors.items() if ".esper." not in n},
            "moments": {n: [bits(s) for s in state[p].values()] for n, p in self.host.items()},
            "losses": self.losses,
            "rng": rng_streams(),
            "settings": read_settings(),
        }


def num_steps_for(kind: type[Hostile]) -> int:
    return NUM_STEPS_TO_HOARD if kind.__name__ in HOARDS else NUM_STEPS


@pytest.fixture(scope="module")
def bare() -> dict[str, Any]:
    torch.set_num_threads(1)
    return Run().train(NUM_STEPS).picture


@pytest.mark.fault(11)
@pytest.mark.parametrize("kind", ZOO.values(), ids=ZOO)
def test_at_alpha_0_no_body_is_run(
    kind: type[Hostile], bare: dict[str, Any], faults: Faults
) -> None:
    """The run is the one without a seed."""
    body = kind()
    assert Run(body).train(NUM_STEPS).picture == bare
    assert body.num_calls == 0
    faults.injected()


@pytest.mark.fault(11)
@every_alpha
@pytest.mark.parametrize("kind", FAULTING.values(), ids=FAULTING)
def test_a_fault_ends_at_the_wall(kind: type[Hostile], rise: float, faults: Faults) -> None:
    """From the faulting step on the run is that of a twin whose alpha is forced to 0.

    Where the fault is in backward, that step's forward has used the seed: in the twin the body's
    output is detached in that step and alpha is 0 from the next.
    """
    num_steps = num_steps_for(kind)
    body = kind()
    run = Run(body, rise=rise).train(num_steps)
    step = run.fault_step
    assert run.seed is not None
    assert run.seed.fault is not None
    assert re.search(kind.fault, run.seed.fault)
    assert "second line" not in run.seed.fault
    assert not run.seed.active
    assert body.num_calls == step
    if kind.__name__ not in HOARDS:
        assert step == STRIKE
    twin = (
        Run(kind(tame=True, detached_at=step), rise=rise, off_from=step + 1)
        if kind.in_backward
        else Run(kind(tame=True), rise=rise, off_from=step)
    )
    assert run.picture == twin.train(num_steps).picture
    assert run.seed.fault == run.seed.fault.strip()
    faults.injected()


@pytest.mark.fault(11)
@every_alpha
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_fault_does_no_harm(name: str, rise: float, faults: Faults) -> None:
    """The run is that of a twin whose body gives the same output and does nothing besides."""
    run = Run(ZOO[name](), rise=rise).train(NUM_STEPS)
    assert run.seed is not None
    assert run.seed.fault is None
    assert run.picture == Run(ZOO[name](tame=True), rise=rise).train(NUM_STEPS).picture
    faults.injected()


NOT_FINITE = ["nan", "one_nan", "infinity", "overflows_once_blended", "nan_gradient"]


@pytest.mark.fault(11)
@every_alpha
@pytest.mark.parametrize("name", [*NOT_FINITE, "nan_gradient_for_the_host", "huge_gradient"])
def test_a_fault_that_is_read_late_ends_at_the_wall_too(
    name: str, rise: float, faults: Faults
) -> None:
    """Where values stay on the device the host's bits are those of the twin all the same, and the
    fault is known in the step after."""
    kind = ZOO[name]
    body = kind()
    run = Run(body, rise=rise)
    assert run.seed is not None
    run.seed.check = FiniteCheck(always_late=True)
    run.train(NUM_STEPS)
    assert run.fault_step == STRIKE + 1
    assert body.num_calls == STRIKE
    assert run.seed.fault == "its output or gradient is not finite"
    twin = (
        Run(kind(tame=True, detached_at=STRIKE), rise=rise, off_from=STRIKE + 1)
        if kind.in_backward
        else Run(kind(tame=True), rise=rise, off_from=STRIKE)
    )
    assert run.picture == twin.train(NUM_STEPS).picture
    faults.injected()


def _in_a_lock(*arguments: Any) -> Any:
    """As Python's locks do with an interrupt that comes while they are waited for."""
    try:
        raise KeyboardInterrupt
    finally:
        raise RuntimeError("release unlocked lock")


@pytest.mark.parametrize(
    ("strike", "error"),
    [
        (raises(KeyboardInterrupt), KeyboardInterrupt),
        (raises(SystemExit), SystemExit),
        (_in_a_lock, KeyboardInterrupt),
    ],
    ids=["interrupt", "exit", "interrupt in a lock"],
)
def test_an_interrupt_goes_through(strike: Any, error: type[BaseException]) -> None:
    """Ctrl-C inside a body is the user's, also where it came out as another error: it is raised,
    and is no fault of the seed."""
    settings = read_settings()
    kind = type("interrupts", (Hostile,), {"strike": strike})
    run = Run(kind(), rise=1.0)
    with pytest.raises(error):
        run.train(NUM_STEPS)
    assert run.seed is not None
    assert run.seed.fault is None
    assert read_settings() == settings


def test_there_are_enough_animals() -> None:
    """The issue asks for at least 20 hostile bodies."""
    assert len(ZOO) >= 20
    assert len(FAULTING) >= 20
