"""Every kind of output: its axes are told, a seed extends it, and the host takes it as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import Site, survey
from kasmina.sites.output import main_tensor
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, detach_seed
from tests.kasmina.growing import bits, everything
from tests.kasmina.sites.zoo import (
    ZOO,
    Recurrent,
    Specimen,
    TiedModel,
    TokenModel,
    noise,
    tokens,
)

every_specimen = pytest.mark.parametrize("specimen", ZOO.values(), ids=ZOO)


class Shift(nn.Module):
    """Adds the same vector at every position of every example."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        sizes = [1] * len(site.shape)
        sizes[site.shape.channel_axis] = site.shape.channels
        self.bias = nn.Parameter(torch.randn(sizes, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand_as(x)


def attach(model: nn.Module, site: Site, alpha: float = 0.5) -> GraftedSeed:
    seed = GraftedSeed(Shift(site), seed=f"{site.name}/0", blueprint="shift", shape=site.shape)
    attach_seed(site.name, model.get_submodule(site.name), seed)
    seed.blend(alpha)
    return seed


@every_specimen
def test_the_axes_of_every_site_are_told(specimen: Specimen) -> None:
    """Which sites there are, where their channels and batches lie, and which do not look ahead."""
    found = survey(specimen.build(), specimen.example)
    axes = {
        site.name: (site.shape.channel_axis, site.shape.batch_axis, site.shape.causal)
        for site in found.sites
    }
    assert axes == specimen.axes


@every_specimen
@pytest.mark.parametrize("training", [True, False])
def test_looking_moves_nothing(specimen: Specimen, training: bool) -> None:
    """Weights, buffers, gradients, modes, classes and every global random stream stay."""
    model = specimen.build().train(training)
    output = model(*specimen.example)
    (output if isinstance(output, Tensor) else output[0]).sum().backward()
    before = everything(model)
    survey(model, specimen.example)
    assert everything(model) == before


def outputs_of(model: nn.Module, site: str, example: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """What a site returns, and what the model makes of it."""
    held = []
    module = model.get_submodule(site)
    original = module.forward
    module.__dict__["forward"] = lambda *args, **kwargs: (
        held.append(original(*args, **kwargs)) or (held[-1])
    )
    output = model(*example)
    del module.__dict__["forward"]
    return held[-1], output


@every_specimen
def test_a_seed_extends_the_main_tensor_and_nothing_else(specimen: Specimen) -> None:
    """At alpha 0.5 every site returns its own kind of output, with the main tensor moved by half
    of the seed's and the rest as it was; the host runs on, the seed learns, and goes tracelessly.
    """
    model = specimen.build().eval()
    for site in survey(model, specimen.example).sites:
        bare, before = outputs_of(model, site.name, specimen.example)
        seed = attach(model, site)
        grown, after = outputs_of(model, site.name, specimen.example)
        assert type(grown) is type(bare)
        one, other = main_tensor(bare), main_tensor(grown)
        assert one is not None
        assert other is not None
        torch.testing.assert_close(other, one + 0.5 * seed.body.bias)
        assert _rest(grown) == _rest(bare)
        last = after if isinstance(after, Tensor) else after[0]
        last.square().sum().backward()
        assert seed.body.bias.grad is not None
        assert bool(seed.body.bias.grad.any())
        detach_seed(model.get_submodule(site.name), seed)
        again = outputs_of(model, site.name, specimen.example)[1]
        assert _bits(again) == _bits(before)


def _rest(output: Any) -> list[Any]:
    """Everything but the main tensor, in values that compare."""
    if isinstance(output, Tensor):
        return []
    parts = output.values() if isinstance(output, dict) else getattr(output, "__dict__", None)
    held = list(parts.values() if isinstance(parts, dict) else parts or output)
    return [_bits(part) for part in held[1:]]


def _bits(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_bits(part) for part in value]
    return bits(value) if isinstance(value, Tensor) else value


def test_tied_weights_stay_tied() -> None:
    """A seed extends outputs, so it grows at either end of a shared weight without touching it."""
    model, example = TiedModel(), ZOO["tied_weights"].example
    for site in survey(model, example).sites:
        attach(model, site)
    model(*example).sum().backward()
    assert model.head.weight is model.tokens.weight
    assert model.head.weight.grad is not None
    assert {n for n, _ in model.named_parameters() if "esper" not in n} == {
        "tokens.weight",
        "body.weight",
        "body.bias",
    }


@pytest.mark.parametrize("length", [1, 2, 5])
def test_causality_does_not_hang_on_the_length(length: int) -> None:
    """A causal model is causal for every length of example."""
    for site in survey(TokenModel(causal=True), (tokens(3, length),)).sites:
        assert site.shape.causal or site.name == "places"


class Noisy(Recurrent):
    """Looks ahead, draws numbers and counts its calls, also in eval mode."""

    def __init__(self) -> None:
        super().__init__(bidirectional=True)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x + self.calls + torch.randn(x.shape))


def test_noise_and_counters_do_not_hide_a_look_ahead() -> None:
    """What is drawn and what buffers hold are the same in every pass that is compared."""
    sites = survey(Noisy(), (noise(3, 7, 5),)).sites
    assert [site.shape.causal for site in sites] == [False, False, False]


class Pointwise(nn.Module):
    """Positions never meet, but in a classifier at the end if there is one."""

    def __init__(self, *, one_answer: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(4, 6, 1), nn.ReLU(), nn.Conv1d(6, 6, 1))
        self.head = nn.Linear(6 * 20, 3) if one_answer else nn.Conv1d(6, 3, 1)
        self.one_answer = one_answer

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        return self.head(x.flatten(1) if self.one_answer else x)


@pytest.mark.parametrize("one_answer", [True, False])
def test_where_positions_never_meet_the_answer_decides(one_answer: bool) -> None:
    """With one answer for the whole sequence a seed may look anywhere; with an answer for each
    position it might be looking at the answer."""
    sites = survey(Pointwise(one_answer=one_answer), (noise(2, 4, 20),)).sites
    sequences = [site.shape.causal for site in sites if len(site.shape) == 3]
    assert len(sequences) >= 2
    assert set(sequences) == {not one_answer}


class Drifting(Recurrent):
    """Looks ahead, and puts out something else at every call, also in eval mode."""

    def __init__(self) -> None:
        super().__init__(bidirectional=True)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x + self.calls)


class Brittle(Recurrent):
    """Looks ahead, and refuses numbers that it does not know."""

    def __init__(self) -> None:
        super().__init__(bidirectional=True)
        self.project.register_forward_hook(self.check)

    def check(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if float(output.detach().abs().max()) > 0.9:
            raise ValueError("out of range")


@pytest.mark.parametrize("build", [Drifting, Brittle])
def test_where_nothing_can_be_measured_sites_count_as_causal(build: type[nn.Module]) -> None:
    """A seed that does not look ahead is safe anywhere, so that is what is assumed."""
    sites = survey(build(), (0.1 * noise(3, 7, 5),)).sites
    assert [site.name for site in sites] == ["project", "memory", "head"]
    assert all(site.shape.causal for site in sites)
