"""What bits depend on beside the code of a run: software, threads and the CPU's instructions."""

from __future__ import annotations

import platform
from typing import Final, Self

import msgspec
import torch

from leyline import VERSION

UNKNOWN: Final = ""
_WORDS: Final = {
    "torch": "torch",
    "python": "Python",
    "platform": "platform",
    "contract": "contract version",
    "num_threads": "threads",
    "cpu_capability": "CPU capability",
}


class Surroundings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint was written on; "" or 0 where it does not say."""

    torch: str
    num_threads: int
    cpu_capability: str
    """Such as "AVX512": which of torch's kernels run."""
    python: str = UNKNOWN
    platform: str = UNKNOWN
    """Operating system and machine, such as "Linux x86_64"."""
    contract: int = 0
    """Version of the message contract."""

    @classmethod
    def here(cls) -> Self:
        """Those of this process, now."""
        return cls(
            torch=str(torch.__version__),
            num_threads=torch.get_num_threads(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            contract=VERSION,
        )

    def differences(self, now: Surroundings) -> str:
        """What is other `now`, in words; empty where the same bits can be promised."""
        pairs = [(word, getattr(self, n), getattr(now, n)) for n, word in _WORDS.items()]
        changed = [(word, was, other) for word, was, other in pairs if was and was != other]
        return ", ".join(f"{word} was {was} and is {other}" for word, was, other in changed)
