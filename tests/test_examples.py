"""The examples do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tolaria.commands import processes

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning_callback", "plain_loop"])
def test_example_grows_a_network_that_pays(name: str, tmp_path: Path) -> None:
    """Each example ends with at least one seed in the network and 90 % held-out accuracy."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=110,
    )

    assert re.search(r"-> [\d,]+ parameters, [1-9]\d* seeds?", done.stdout)
    assert float(re.findall(r"accuracy ([\d.]+)", done.stdout)[-1]) >= 0.9
