"""What is no site, each with its reason; and what looks as if it were none but is one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from kasmina import survey, survey_copy
from kasmina.sites.live_guard import way_to_live
from tests.kasmina.growing import grow

X = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0))


class Made(nn.Module):
    """A model of some parts and a forward, made on the spot."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.run = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def linear() -> nn.Linear:
    return nn.Linear(4, 4)


def without_grad(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = model.odd(x)
    return model.fine(hidden)


def packed(model: Any, x: Tensor) -> Tensor:
    inputs = pack_padded_sequence(x, torch.tensor([6, 5, 2]), batch_first=True)
    return model.fine(pad_packed_sequence(model.odd(inputs)[0], batch_first=True)[0])


def moved(model: Any, x: Tensor) -> Tensor:
    model.away = model.odd(x)
    return model.fine(x)


class Moving(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to("meta")


class Widening(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


class Growing(nn.Sequential):
    """Returns a channel more at every call."""

    def forward(self, x: Tensor) -> Tensor:
        self.extra = getattr(self, "extra", -1) + 1
        return functional.pad(super().forward(x), (0, self.extra))


def growing(model: Any, x: Tensor) -> Tensor:
    return model.fine(model.odd(x)[..., :4])


class Nothing(nn.Linear):
    def forward(self, x: Tensor) -> None:
        super().forward(x)


CASES: dict[str, tuple[nn.Module, Tensor, str]] = {
    "unused": (Made(lambda m, x: m.fine(x), odd=linear(), fine=linear()), X, "never called"),
    "only its weights": (
        Made(lambda m, x: m.fine(functional.linear(x, m.odd.weight)), odd=linear(), fine=linear()),
        X,
        "never called: it is not used, or only its weights are",
    ),
    "in training alone": (
        Made(lambda m, x: m.fine(m.odd(x) if m.training else x), odd=linear(), fine=linear()),
        X,
        "called 1 times in training, 0 in eval and 0 in eval without gradients",
    ),
    "functionally in eval": (
        Made(
            lambda m, x: m.fine(
                m.odd(m.odd(x) if m.training else functional.linear(x, m.odd.weight))
            ),
            odd=linear(),
            fine=linear(),
        ),
        X,
        "called 2 times in training, 1 in eval",
    ),
    "without gradients": (
        Made(without_grad, odd=linear(), fine=linear()),
        X,
        r"without gradients in training, .* never learn; leave out torch.no_grad",
    ),
    "reentrant checkpoint": (
        Made(
            lambda m, x: m.fine(checkpoint(m.odd, x.requires_grad_(), use_reentrant=True)),
            odd=linear(),
            fine=linear(),
        ),
        X.clone(),
        "checkpoint with use_reentrant=False",
    ),
    "packed sequences": (
        Made(packed, odd=nn.GRU(4, 4, batch_first=True), fine=linear()),
        X,
        "packed sequence",
    ),
    "None": (
        Made(lambda m, x: (m.odd(x), m.fine(x))[1], odd=Nothing(4, 4), fine=linear()),
        X,
        "returns None",
    ),
    "unbatched convolution": (
        Made(
            lambda m, x: m.fine(m.odd(x[0]).mean(0)), odd=nn.Conv2d(4, 4, 1), fine=nn.Linear(7, 4)
        ),
        IMAGES,
        "called without a batch axis",
    ),
    "unbatched recurrence": (
        Made(lambda m, x: m.fine(m.odd(x[0])[0]), odd=nn.LSTM(4, 4), fine=linear()),
        X,
        "called without a batch axis",
    ),
    "unbatched attention": (
        Made(
            lambda m, x: m.fine(m.odd(x[0], x[0], x[0])[0]),
            odd=nn.MultiheadAttention(4, 1),
            fine=linear(),
        ),
        X,
        "called without a batch axis",
    ),
    "no channels": (
        Made(lambda m, x: m.fine(x) + m.odd(x[0, 0]).sum(), odd=linear(), fine=linear()),
        X,
        r"torch.float32 of 1 axes",
    ),
    "other channels each time": (
        Made(growing, odd=Growing(nn.Identity(), linear()), fine=linear()),
        X,
        "other channels from call to call",
    ),
    "other axes each time": (
        Made(lambda m, x: m.fine(m.odd(x)[:, 0] + m.odd(x[:, 0])), odd=linear(), fine=linear()),
        X,
        "other axes from call to call",
    ),
    "on another device": (
        Made(moved, odd=Moving(4, 4), fine=linear()),
        X,
        "its output is on meta, its parameters are on cpu",
    ),
    "of another dtype": (
        Made(lambda m, x: m.fine(m.odd(x).float()), odd=Widening(4, 4), fine=linear()),
        X,
        "its output is torch.float64, its parameters are torch.float32",
    ),
    "channels that may be either axis": (
        Made(
            lambda m, x: m.fine(m.odd(x).mean((2, 3))),
            odd=Made(
                lambda m, x: m.last(m.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
                first=nn.Conv2d(4, 4, 1),
                last=linear(),
            ),
            fine=linear(),
        ),
        torch.randn(2, 4, 4, 4),
        "channels may be axis 1 or the last one, both of size 4",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_site_says_why(case: str) -> None:
    """One part is refused, with the reason; its neighbour is a site all the same."""
    model, x, reason = CASES[case]
    found = survey(model, (x,))
    assert "odd" in found.refused, found.sites
    assert re.search(reason, found.refused["odd"]), found.refused
    assert "fine" in [site.name for site in found.sites], found.refused


def test_a_patched_forward_and_the_outer_of_two_equal_outputs_are_refused() -> None:
    """Of wrappers that pass one tensor on the innermost is the site, whatever they pack it in."""
    inner = Made(lambda m, x: (m.lstm(x)[0], 0), lstm=nn.LSTM(4, 4, batch_first=True))
    model = Made(
        lambda m, x: m.patched(m.outer(x)[0]),
        outer=Made(lambda m, x: [m.inner(x)[0], None], inner=inner),
        patched=linear(),
    )
    model.patched.forward = torch.sin  # type: ignore[method-assign,union-attr] # what is refused
    found = survey(model, (X,))
    assert [site.name for site in found.sites] == ["outer.inner.lstm"]
    assert (
        found.refused["outer"]
        == found.refused["outer.inner"]
        == ("its output is that of outer.inner.lstm")
    )
    assert "patched on the instance" in found.refused["patched"]


def test_a_frozen_host_under_no_grad_says_so_and_grows_elsewhere() -> None:
    """Frozen parameters are no reason against a site; a call without gradients is."""
    model = Made(without_grad, odd=linear(), fine=linear()).requires_grad_(False)
    found = survey(model, (X,))
    assert [site.name for site in found.sites] == ["fine"]
    assert "without gradients" in found.refused["odd"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_another_precision_have_their_sites(dtype: torch.dtype) -> None:
    """The seed's dtype is that of the parameters beside it, and so is the output's."""
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8)).to(dtype)
    assert [site.dtype for site in survey(model, (X.to(dtype),)).sites] == [dtype, dtype]


def test_autocast_may_change_the_dtype() -> None:
    """Under autocast an output is narrower than its weights, and a seed runs under it too."""
    model, x = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)), IMAGES

    def run(copied: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return copied(x)

    sites = survey_copy(copy.deepcopy(model), run).sites
    assert {site.name: site.dtype for site in sites}["0"] == torch.bfloat16
    seed = grow(model, "0", x, alpha=0.5, blueprint="conv")
    output = run(model)
    output.sum().backward()
    assert seed.fault is None
    assert all(bool(p.grad.any()) for p in seed.parameters() if p.grad is not None)


def test_channels_last_memory_stays_so() -> None:
    """A seed on a channels_last convolution keeps its memory format, forward and in the grad."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    model = model.to(memory_format=torch.channels_last)
    x = IMAGES.to(memory_format=torch.channels_last)
    grow(model, "0", x, alpha=0.5, blueprint="conv")
    hidden = model[0](x)
    assert hidden.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(model[1:](hidden).square().sum(), hidden)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_model_on_the_meta_device_is_refused_whole() -> None:
    """There is nothing to measure; every module says what is missing."""
    with torch.device("meta"):
        model = nn.Sequential(linear(), nn.ReLU(), linear())
    found = survey(model, (X.to("meta"),))
    assert found.sites == []
    assert set(found.refused) == {"0", "2"}
    assert "meta device" in found.refused["0"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_model_spread_over_devices() -> None:
    """Layers on the GPU and on the CPU are sites each, a block that hands over between them not."""
    head, tail = linear().cuda(), linear()
    body = Made(lambda m, x: m.tail(m.head(x).cpu()) * 1, head=head, tail=tail)
    model = Made(lambda m, x: m.body(x), body=body)
    found = survey(model, (X.cuda(),))
    assert [site.name for site in found.sites] == ["body.head", "body.tail"]
    assert "its output is on cpu" in found.refused["body"]


def step(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """One whole training step: gradients by parameter."""
    model.zero_grad()
    model(x).square().mean().backward()
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def test_a_checkpointed_block_is_a_site_and_trains_as_the_plain_one() -> None:
    """Without reentrance: one survey's worth of calls, and through a whole step with a seed at
    alpha 0.5 in a block with dropout every gradient is that of the unchecked twin."""
    block = nn.Sequential(linear(), nn.GELU(), nn.Dropout(0.3), linear())
    plain = Made(lambda m, x: m.head(m.block(x)), block=block, head=linear())
    checked = copy.deepcopy(plain)
    checked.run = lambda m, x: m.head(checkpoint(m.block, x, use_reentrant=False))
    for model in (plain, checked):
        sites = survey(model, (X,)).sites
        assert [site.name for site in sites] == ["block.0", "block.3", "head"]
        grow(model, "block.0", X, alpha=0.5)
    torch.manual_seed(3)
    expected = step(plain, X)
    torch.manual_seed(3)
    found = step(checked, X)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert bool(found["block.0.esper.0.body.1.weight"].any())


class Compiled:
    """A model of which two parts and a function are compiled, and the number of graphs made."""

    def __init__(self) -> None:
        self.num_graphs = 0
        body: Any = torch.compile(nn.Sequential(linear(), nn.ReLU()), backend=self.count)
        act: Any = torch.compile(functional.relu, backend=self.count)
        last = Made(lambda m, x: act(m.fc(x)), fc=linear())
        self.model = nn.Sequential(linear(), body, last)
        self.model[0].compile(backend=self.count)

    def count(self, graph: Any, inputs: Any) -> Any:
        self.num_graphs += 1
        return graph


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_submodules_are_surveyed_without_compiling() -> None:
    """Wrapped by torch.compile, by their own compile(), or a function that a forward calls: no
    graph is made, calls are counted, the live model goes on compiled."""
    looked_at, twin = Compiled(), Compiled()
    assert way_to_live(looked_at.model) is None
    found = survey(looked_at.model, (X,))
    assert looked_at.num_graphs == 0
    names = ["0", "1._orig_mod", "1._orig_mod.0", "2", "2.fc"]
    assert [site.name for site in found.sites] == names
    assert "patched" in found.refused["1"]
    for each in (looked_at, twin):
        each.model(X)
    assert looked_at.num_graphs == twin.num_graphs > 0


def test_half_precision_and_buffers_are_left_alone() -> None:
    """Surveying a half-precision model with running statistics leaves them bit-identical."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).bfloat16()
    before = copy.deepcopy(model.state_dict())
    survey(model, (IMAGES.bfloat16(),))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
