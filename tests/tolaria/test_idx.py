"""Sets in IDX files: read as written, and refused by name where they are damaged or missing."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import ConfigError
from tolaria import data
from tolaria.data.idx import read_idx
from tolaria.data.splits import FASHION_FILES

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


def write_idx(path, values):
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=1))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 99))
def test_idx_is_read_as_written(tmp_path_factory, sizes, fill):
    """Any shape of unsigned bytes comes back value for value."""
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    values = np.random.RandomState(fill).randint(0, 256, sizes).astype(np.uint8)
    write_idx(path, values)
    assert np.array_equal(read_idx(path, tuple(sizes)), values)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: b"not gzip at all", "cannot be read as gzip"),
        (lambda raw: raw[: len(raw) // 2], "cannot be read as gzip"),
        (lambda raw: raw[:-8] + bytes(8), "cannot be read as gzip"),  # the checksum
        (lambda raw: raw[:10] + b"\xff" + raw[11:], "cannot be read as gzip"),  # the deflate stream
        (lambda raw: gzip.compress(b""), "begins with nothing"),
        (lambda raw: gzip.compress(b"\0\0\x0d" + gzip.decompress(raw)[3:]), "begins with 00000d"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "holds 39 values.*needs 40"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"x"), "more than 40 values"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, damage, says):
    """Each way a file can be wrong is an error that names the file and the damage."""
    path = tmp_path / "values.gz"
    write_idx(path, np.arange(40, dtype=np.uint8).reshape(4, 10))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=rf"values\.gz.*{says}"):
        read_idx(path, (4, 10))


@pytest.fixture(scope="module")
def fashion_dir(tmp_path_factory):
    """Files of the right shapes: image i is all i % 251, its label i % 10."""
    directory = tmp_path_factory.mktemp("fashion-mnist")
    for name, shape in FASHION_FILES.items():
        index = np.arange(shape[0]) % (251 if len(shape) == 3 else 10)
        column = index.astype(np.uint8).reshape(-1, *(1,) * (len(shape) - 1))
        write_idx(directory / name, np.ascontiguousarray(np.broadcast_to(column, shape)))
    return directory


def test_fashion_is_read_from_its_directory(fashion_dir):
    """Images and labels keep their order, their scale and their split."""
    splits = data.load("fashion-mnist", data_dir=fashion_dir).data.splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [
        55_000,
        5_000,
        10_000,
    ]
    assert splits.val.inputs.shape[1:] == (1, 28, 28)
    assert splits.val.inputs[7, 0, 3, 3] == pytest.approx(55_007 % 251 / 255)
    assert splits.val.labels[7] == 7
    assert splits.test.inputs[300, 0, 0, 0] == pytest.approx(49 / 255)


def test_fashion_says_what_is_missing(tmp_path, fashion_dir):
    """A missing file is named, with the place looked in and the command that installs it."""
    (tmp_path / "train-images-idx3-ubyte.gz").symlink_to(fashion_dir / "train-images-idx3-ubyte.gz")
    says = (
        f"train-labels-idx1-ubyte.gz is missing; looked in {tmp_path}.*"
        "apt-get install dataset-fashion-mnist.*--data-dir /usr/share/datasets/fashion-mnist"
    )
    with pytest.raises(ConfigError, match=says):
        data.load("fashion-mnist", data_dir=tmp_path)


def test_fashion_refuses_a_class_that_is_not(tmp_path, fashion_dir):
    """A label above 9 is found when the file is read, not in the middle of training."""
    for name in FASHION_FILES:
        (tmp_path / name).symlink_to(fashion_dir / name)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(10_000, 10, np.uint8))
    with pytest.raises(ConfigError, match="label 10; the labels are 0 to 9"):
        data.load("fashion-mnist", data_dir=tmp_path)
