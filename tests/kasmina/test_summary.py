"""The summary: sizes that add up, and a line per seed."""

from __future__ import annotations

from kasmina import summary
from tests.kasmina.growing import grow
from tests.kasmina.hosts import HOSTS, conv_net


def test_a_summary_counts_host_and_seeds() -> None:
    """Host and grown parameters add up to the model's, and the text shows every seed."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    host = sum(p.numel() for p in model.parameters())
    bare = summary(model)
    assert (bare.host_parameters, bare.grown_parameters, bare.seeds) == (host, 0, ())
    assert str(bare) == f"{host} -> {host} parameters, 0 seeds"
    grow(model, "stem", x, alpha=0.25, blueprint="conv")
    assert str(summary(model)).splitlines()[0].endswith("parameters, 1 seed")
    grow(model, "block", x, alpha=1.0, blueprint="norm", number=11).requires_grad_(False)
    told = summary(model)
    total = sum(p.numel() for p in model.parameters())
    assert told.host_parameters == host
    assert told.host_parameters + told.grown_parameters == total
    assert [(s.seed, s.site, s.parameters, s.trainable) for s in told.seeds] == [
        ("stem/0", "stem", 672, True),
        ("block/11", "block", 16, False),
    ]
    assert str(told).splitlines() == [
        f"{host} -> {total:,} parameters, 2 seeds",
        "  stem/0    conv                   672 parameters  alpha 0.25  trainable",
        "  block/11  norm                    16 parameters  alpha 1.00  frozen",
    ]
