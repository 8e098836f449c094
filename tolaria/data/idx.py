"""Reads gzipped IDX files, the format of MNIST and of the sets made after it."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leyline import ConfigError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a file of unsigned bytes that must hold exactly `shape`.

    Raises:
        ConfigError: The file is not gzip, is cut short, is not IDX, or holds another shape.
    """
    header = struct.Struct(f">HBB{len(shape)}I")
    num_values = math.prod(shape)
    try:
        with gzip.open(path) as file:
            head = file.read(header.size)
            body = file.read(num_values + 1)  # one more, to notice a longer file
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"{path} cannot be read as gzip ({error}); fetch the file again"
        ) from error
    wanted = (0, UNSIGNED_BYTE, len(shape), *shape)
    if len(head) < header.size or header.unpack(head) != wanted:
        raise ConfigError(
            f"{path} begins with {head.hex() or 'nothing'}; an IDX file of unsigned bytes of shape "
            f"{shape} begins with {header.pack(*wanted).hex()}; fetch the file again"
        )
    if len(body) != num_values:
        found = f"{len(body)}" if len(body) < num_values else f"more than {num_values}"
        raise ConfigError(
            f"{path} holds {found} values; shape {shape} needs {num_values}; fetch the file again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)
