# SPDX-License-Identifier: Apache-2.0
import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import research
from research.data import DatasetCorrupted, load
from research.data._digits import FILE, load_digits


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def splits(dataset):
    return dataset.train, dataset.validation, dataset.test


def test_shapes_and_types(digits):
    assert [len(split) for split in splits(digits)] == [1257, 180, 360]
    assert digits.input_shape == (8, 8, 1)
    assert digits.num_classes == 10
    for split in splits(digits):
        assert split.x.dtype == np.float32
        assert split.y.dtype == np.int32
        assert split.x.min() == 0 and split.x.max() == 1


def test_the_splits_together_are_the_file_each_row_once(digits):
    rows = sorted(gzip.decompress(FILE.read_bytes()).decode().split())
    loaded = [
        ",".join(f"{pixel:.0f}" for pixel in x.ravel() * 16) + f",{y}"
        for split in splits(digits)
        for x, y in zip(split.x, split.y, strict=True)
    ]
    plain = [",".join(f"{float(v):.0f}" for v in row.split(",")) for row in rows]
    assert sorted(loaded) == sorted(plain)
    # Nothing in one split is in another either: the file has no image twice.
    assert len(set(loaded)) == 1797


def test_classes_are_balanced_alike(digits):
    whole = np.concatenate([split.y for split in splits(digits)])
    for split in splits(digits):
        exact = np.bincount(whole) * len(split) / len(whole)
        assert np.abs(np.bincount(split.y) - exact).max() < 2


def test_loading_twice_gives_the_same(digits):
    again = load("digits")
    for one, two in zip(splits(digits), splits(again), strict=True):
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.y, two.y)


def test_nearest_neighbor_is_right_on_most_of_the_test_set(digits):
    # Labels sit with their images: with 10 classes, chance is right on 36 of 360.
    train, test = digits.train, digits.test
    gap = test.x.reshape(360, 1, 64) - train.x.reshape(1, 1257, 64)
    guess = train.y[(gap**2).sum(-1).argmin(1)]
    assert (guess == test.y).sum() > 340


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "digits.csv.gz"
    file.write_bytes(FILE.read_bytes()[:-1])
    with pytest.raises(DatasetCorrupted, match=r"digits\.csv\.gz: its content has"):
        load_digits(file=file)


def test_another_file_is_read_if_its_checksum_is_given(tmp_path):
    file = tmp_path / "small.csv.gz"
    pixels = ",".join(["16"] * 64)
    file.write_bytes(
        gzip.compress("".join(f"{pixels},{i % 2}\n" for i in range(40)).encode())
    )
    small = load_digits(file=file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert [len(split) for split in splits(small)] == [28, 4, 8]
    assert small.train.x.min() == 1


def test_neither_jax_nor_tensorflow_datasets_is_imported():
    code = (
        "import sys, research.data; research.data.load();"
        "print(*{'jax', 'tensorflow_datasets', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(research.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == ""


def test_the_splits_are_the_same_for_ever(digits):
    # Recorded once: accuracies of studies are of these 360 images.
    digest = hashlib.sha256(digits.test.y.tobytes() + digits.test.x.tobytes())
    assert digest.hexdigest()[:16] == "bf15cb3288dca1b7"
