"""Every bench, one table each, in about ten minutes on two cores.

Run it: make bench, or python -m bench chunks race for some.
"""

from __future__ import annotations

import platform
import sys

import torch

from bench import (
    audit,
    bookkeeping,
    boundary,
    callback,
    checkpoint,
    chunks,
    codec,
    decide,
    dormant,
    guard,
    offer,
    publish,
    race,
    rates,
    rollback,
    search,
    seeds,
    work,
)
from bench.pairs import show

BENCHES = {
    "boundary": boundary,
    "decide": decide,
    "callback": callback,
    "seeds": seeds,
    "bookkeeping": bookkeeping,
    "chunks": chunks,
    "dormant": dormant,
    "guard": guard,
    "race": race,
    "search": search,
    "work": work,
    "rates": rates,
    "checkpoint": checkpoint,
    "rollback": rollback,
    "codec": codec,
    "offer": offer,
    "publish": publish,
    "audit": audit,
}


def main() -> None:
    """Run the benches named on the command line, or all of them, and print their tables."""
    wanted = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in wanted if name not in BENCHES]
    if unknown:
        sys.exit(f"no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        "one thread"
    )
    for name in wanted:
        show(BENCHES[name].TITLE, BENCHES[name].rows)


if __name__ == "__main__":
    main()
