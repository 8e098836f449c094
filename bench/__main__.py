"""Every bench, one table each, in about five minutes on two cores.

Run it: make bench, or python -m bench chunks race for some.
"""

from __future__ import annotations

import platform
import sys

import torch

from bench import boundary, chunks, dormant, guard, race, seeds
from bench.pairs import show

BENCHES = {
    "seeds": seeds,
    "chunks": chunks,
    "dormant": dormant,
    "guard": guard,
    "race": race,
}


def main() -> None:
    wanted = sys.argv[1:] or ["boundary", *BENCHES]
    unknown = [name for name in wanted if name not in BENCHES and name != "boundary"]
    if unknown:
        sys.exit(f"no bench {unknown[0]!r}; there are boundary, {', '.join(BENCHES)}")
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        "one thread"
    )
    for name in wanted:
        if name == "boundary":
            boundary.main()
        else:
            show(BENCHES[name].TITLE, BENCHES[name].rows)


if __name__ == "__main__":
    main()
