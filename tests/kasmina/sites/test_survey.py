"""Sites: what is found, what is refused and why, and that looking moves nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import choose, discover, survey
from kasmina.trials.task import copy_module
from leyline import BlueprintError, SiteError
from tests.kasmina.growing import everything, grow
from tests.kasmina.hosts import HOSTS, Host, conv_net, transformer

every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)

FOUND = {
    "conv_net": {
        "stem": ((4, 8, 6, 6), 1),
        "block": ((4, 8, 6, 6), 1),
        "block.0": ((4, 8, 6, 6), 1),
        "head": ((4, 4), -1),
    },
    "lstm": {"head": ((4, 5, 4), -1)},
    "transformer": {"layers.0": ((4, 5, 16), -1), "layers.1": ((4, 5, 16), -1)},
    "resnet": {
        "stem": ((4, 8, 6, 6), 1),
        **{
            f"blocks.{n}{part}": ((4, 8, 6, 6), 1)
            for n in (0, 1)
            for part in ("", ".conv", ".norm")
        },
        "head": ((4, 4), -1),
    },
    "conv1d": {"conv": ((4, 8, 9), 1), "norm": ((4, 8, 9), 1), "head": ((4, 4), -1)},
}


def refused(model: nn.Module, *args: Any) -> dict[str, str]:
    return survey(copy_module(model), lambda copied: copied(*args)).refused


@pytest.mark.parametrize("name", FOUND)
def test_the_sites_of_each_host(name: str) -> None:
    """Exactly the expected submodules are found, with the shapes and channels they put out."""
    host = HOSTS[name]
    sites = discover(host.build(), (host.example(),))
    assert {s.name: (tuple(s.shape), s.shape.channel_axis) for s in sites} == FOUND[name]
    assert {s.dtype for s in sites} == {torch.float32}
    names = [n for n, _ in host.build().named_modules()]
    assert [s.name for s in sites] == [n for n in names if n in FOUND[name]]


def test_a_site_accepts_what_fits_its_shape() -> None:
    """Convolutions fit image-like outputs only; what takes channels fits everywhere."""
    sites = {s.name: s for s in discover(conv_net(), (HOSTS["conv_net"].example(),))}
    assert all(sites["stem"].accepts(b) for b in ("conv", "depthwise_conv", "low_rank", "norm"))
    assert not sites["head"].accepts("conv")
    assert sites["head"].accepts("low_rank")
    assert sites["stem"].num_parameters("norm") == 16
    with pytest.raises(BlueprintError, match="'nonsense'"):
        sites["stem"].accepts("nonsense")


@every_host
@pytest.mark.parametrize("training", [True, False])
def test_looking_moves_nothing(host: Host, training: bool) -> None:
    """Weights, buffers, gradients, modes, classes and every global random stream stay."""
    model, x = host.build().train(training), host.example()
    model(x).sum().backward()
    before = everything(model)
    discover(model, (x,))
    assert everything(model) == before


def test_a_single_tensor_is_an_example_too() -> None:
    """A bare tensor means a call with that one argument."""
    x = HOSTS["conv_net"].example()
    assert discover(conv_net(), x) == discover(conv_net(), (x,))  # type: ignore[arg-type] # on purpose


def test_what_a_fast_path_bypasses_is_refused() -> None:
    """Parts of an encoder layer are skipped in eval without gradients; the reason says so."""
    reasons = refused(transformer(), HOSTS["transformer"].example())
    assert {f"layers.0.{part}" for part in ("linear1", "norm1", "self_attn")} <= set(reasons)
    assert "bypassed" in reasons["layers.0.linear1"]
    assert "0 in eval without gradients" in reasons["layers.0.linear1"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_outputs_are_refused() -> None:
    """With a padding mask encoder layers pass nested tensors in eval: no seed can extend those."""
    x = HOSTS["transformer"].example()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[0, 3:] = True
    found = survey(transformer(), lambda model: model(x, src_key_padding_mask=mask))
    assert found.sites == []
    assert "nested" in found.refused["layers.0"]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.other = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.second(self.first(x)))


def test_a_module_under_two_names_is_refused() -> None:
    """Both names are refused, with both named; the others are found."""
    x = torch.randn(2, 4)
    assert [s.name for s in discover(Shared(), (x,))] == ["other"]
    reasons = refused(Shared(), x)
    assert reasons["first"] == reasons["second"]
    assert "first, second" in reasons["first"]


class Odd(nn.Module):
    """A submodule of every kind that is no site."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapper = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
        self.unused = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.patched = nn.Linear(4, 4)
        self.patched.forward = torch.sin  # type: ignore[method-assign] # what is refused
        self.train_only = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = self.train_only(x)
        return self.attention(x, x, self.patched(self.wrapper(x)))[0]


def test_every_refusal_has_its_reason() -> None:
    """Never called, a tuple, patched, training only, and a block with its last layer's tensor."""
    model, x = Odd(), torch.randn(2, 3, 4)
    assert [s.name for s in discover(model, (x,))] == ["wrapper.0.0"]
    reasons = refused(model, x)
    assert reasons["wrapper"] == reasons["wrapper.0"] == "its output is that of wrapper.0.0"
    assert reasons["unused"] == "it is never called"
    assert "returns a tuple" in reasons["attention"]
    assert "patched" in reasons["patched"]
    assert "1 times in training, 0 in eval" in reasons["train_only"]


def test_a_grown_model_has_its_sites_still() -> None:
    """Seeds are no sites themselves, and hide none."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    before = discover(model, (x,))
    grow(model, "stem", x, alpha=1.0)
    grow(model, "block", x, alpha=0.0)
    assert discover(model, (x,)) == before


def test_the_first_positional_call_is_kept_as_example() -> None:
    """An export needs the arguments of the model's own forward; keywords give none."""
    x = torch.randn(2, 4)
    assert survey(Shared(), lambda model: model(x)).example == (x,)
    assert survey(Shared(), lambda model: model(x=x)).example is None


def test_choose_takes_globs_and_names_the_sites_otherwise() -> None:
    """ "auto" keeps all, globs keep matches in site order, a miss names pattern and sites."""
    sites = discover(HOSTS["resnet"].build(), (HOSTS["resnet"].example(),))
    assert choose(sites, "auto") == sites
    assert [s.name for s in choose(sites, ["head", "blocks.?"])] == ["blocks.0", "blocks.1", "head"]
    assert [s.name for s in choose(sites, "*.conv")] == ["blocks.0.conv", "blocks.1.conv"]
    with pytest.raises(SiteError, match=r"'neck\*'.*stem, blocks\.0, "):
        choose(sites, ["head", "neck*"])
