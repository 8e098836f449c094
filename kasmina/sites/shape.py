"""The shape of what a site puts out, and which of its axes carries the channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self


class SiteShape(tuple[int, ...]):
    """A tuple of sizes, batch first, that also knows which axes mean what.

    Channels are on axis 1 for convolutions and image-like outputs, on the last axis for everything
    else ([B, C] counts as "last").
    """

    channel_axis: int
    """1 or -1."""
    batch_axis: int
    """0; 1 for recurrent and attention modules that take the sequence first, [L, B, C]."""
    causal: bool
    """No position of the site's output depends on a later one, and so no seed there may look
    ahead."""

    def __new__(
        cls,
        sizes: Iterable[int],
        channel_axis: int,
        *,
        batch_axis: int = 0,
        causal: bool = False,
    ) -> Self:
        """Build from sizes and the meaning of the axes."""
        shape = super().__new__(cls, tuple(int(size) for size in sizes))
        shape.channel_axis = channel_axis
        shape.batch_axis = batch_axis
        shape.causal = causal
        return shape

    def __reduce__(self) -> Any:
        return SiteShape.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        return {
            "sizes": list(self),
            "channel_axis": self.channel_axis,
            "batch_axis": self.batch_axis,
            "causal": self.causal,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A shape from its plain values.

        Raises:
            ValueError, TypeError, KeyError: they are not what `to_dict` gives.
        """
        return cls(
            values["sizes"],
            int(values["channel_axis"]),
            batch_axis=int(values["batch_axis"]),
            causal=bool(values["causal"]),
        )

    def chunk(self, num_chunks: int) -> Self:
        """The shape of one of `num_chunks` equal parts of the channels."""
        assert self.channels % num_chunks == 0
        sizes = list(self)
        sizes[self.channel_axis] //= num_chunks
        return type(self).from_dict({**self.to_dict(), "sizes": sizes})

    @property
    def channels(self) -> int:
        """Size of the channel axis."""
        return self[self.channel_axis]

    @property
    def channels_first(self) -> bool:
        """True for [B, C, ...] with at least one spatial axis."""
        return self.channel_axis == 1

    @property
    def num_spatial(self) -> int:
        """Axes after the channels, 0 when the channels come last."""
        return len(self) - 2 if self.channels_first else 0
