"""Which way the monitored metric is better."""

from __future__ import annotations

import re
from typing import Final

_RISES: Final = re.compile(r"acc|auc|auroc|f1|precision|recall|iou|dice|bleu|rouge|score|r2")
_FALLS: Final = re.compile(r"loss|err|mae|mse|perplexity|ppl|nll")


def better_sign(monitor: str, mode: str) -> float:
    """-1 for a metric of which less is better, 1 for one of which more is, 0 if nobody can tell."""
    if mode == "auto":
        mode = "min" if _FALLS.search(monitor) else "max" if _RISES.search(monitor) else "none"
    return {"min": -1.0, "max": 1.0}.get(mode, 0.0)
