# SPDX-License-Identifier: Apache-2.0
"""The real code on small made-up images in the real file format."""

import gzip
import hashlib
import json
import struct

import numpy as np
import pytest

from research.data import (
    DatasetCorrupted,
    DatasetNotFound,
    _fashion_mnist as fashion,
    load,
)
from research.data._fashion_mnist import load_fashion_mnist
from research.data._tfds import tensorflow_datasets

SIZES = {"train": 120, "t10k": 20}


class Fake:
    """Random images, their raw files' content, and the checksums of both."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.content, self.records = {}, {}
        for part, n in SIZES.items():
            images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
            labels = (np.arange(n) % 10).astype(np.uint8)
            self.content[f"{part}-images-idx3-ubyte.gz"] = (
                struct.pack(">4i", 2051, n, 28, 28) + images.tobytes()
            )
            self.content[f"{part}-labels-idx1-ubyte.gz"] = (
                struct.pack(">2i", 2049, n) + labels.tobytes()
            )
            rows = [
                bytes([y]) + x.tobytes() for x, y in zip(images, labels, strict=True)
            ]
            self.records["test" if part == "t10k" else part] = sorted(rows)

    @property
    def checksums(self):
        def sha256(content):
            return hashlib.sha256(content).hexdigest()

        return {
            "files": {name: sha256(content) for name, content in self.content.items()},
            "records": {k: sha256(b"".join(rows)) for k, rows in self.records.items()},
        }

    def write(self, folder):
        folder.mkdir(exist_ok=True)
        for name, content in self.content.items():
            (folder / name).write_bytes(gzip.compress(content, mtime=7))
        return folder


@pytest.fixture(scope="module")
def fake():
    return Fake()


@pytest.fixture
def raw(fake, tmp_path):
    return fake.write(tmp_path / "raw")


def as_rows(*splits):
    """Bytes of label and pixels of every example, sorted."""
    return sorted(
        bytes([y]) + np.round(x * 255).astype(np.uint8).tobytes()
        for split in splits
        for x, y in zip(split.x, split.y, strict=True)
    )


def assert_same(one, two):
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(one, part).x, getattr(two, part).x)
        np.testing.assert_array_equal(getattr(one, part).y, getattr(two, part).y)


def test_raw_files_are_prepared_and_read_back_whole(fake, raw, isolated, no_sockets):
    dataset = load_fashion_mnist(raw, download=False, **fake.checksums)
    assert as_rows(dataset.train, dataset.validation) == fake.records["train"]
    assert as_rows(dataset.test) == fake.records["test"]
    assert np.bincount(dataset.train.y).tolist() == [11] * 10
    assert np.bincount(dataset.validation.y).tolist() == [1] * 10
    assert dataset.input_shape == (28, 28, 1)
    assert (dataset.train.x.dtype, dataset.train.y.dtype) == (np.float32, np.int32)
    assert dataset.num_classes == 10
    assert dataset.source == str(isolated / "fashion_mnist" / "3.0.1")


def test_the_second_load_reads_the_copy_and_gives_the_same(fake, raw, isolated):
    first = load_fashion_mnist(raw, download=False, **fake.checksums)
    second = load_fashion_mnist(None, download=False, **fake.checksums)
    assert second.source == str(isolated / "fashion_mnist_records.npz")
    assert_same(first, second)


def test_the_prepared_set_alone_gives_the_same(fake, raw, isolated, no_sockets):
    first = load_fashion_mnist(raw, download=False, **fake.checksums)
    (isolated / "fashion_mnist_records.npz").unlink()
    # As data_dir, too: both name the folder above fashion_mnist/.
    prepared = load_fashion_mnist(isolated, download=False, **fake.checksums)
    assert_same(first, prepared)


def test_the_stock_name_reads_what_was_prepared(fake, raw, isolated):
    tfds = tensorflow_datasets()
    load_fashion_mnist(raw, download=False, **fake.checksums)
    stock = tfds.data_source(
        "fashion_mnist", split="test", data_dir=isolated, download=False
    )
    rows = [bytes([e["label"]]) + e["image"].tobytes() for e in stock]
    assert sorted(rows) == fake.records["test"]


def test_system_files_are_found_and_prepared_in_data_dir(
    fake, tmp_path, monkeypatch, no_sockets
):
    monkeypatch.setattr(fashion, "SYSTEM_DIR", fake.write(tmp_path / "system"))
    chosen = tmp_path / "chosen"
    dataset = load_fashion_mnist(chosen, download=True, **fake.checksums)
    assert dataset.source == str(chosen / "fashion_mnist" / "3.0.1")


def test_download(fake, raw, tmp_path, serve, monkeypatch):
    monkeypatch.setattr(fashion, "URL", serve(raw))
    home = tmp_path / "home"
    dataset = load_fashion_mnist(home, download=True, **fake.checksums)
    assert as_rows(dataset.test) == fake.records["test"]
    assert not list(home.glob("**/*.gz"))


def test_a_file_that_changed_upstream_is_refused(
    fake, raw, tmp_path, serve, monkeypatch
):
    name = "t10k-labels-idx1-ubyte.gz"
    (raw / name).write_bytes(gzip.compress(b"other content"))
    monkeypatch.setattr(fashion, "URL", serve(raw))
    with pytest.raises(DatasetCorrupted, match=name):
        load_fashion_mnist(tmp_path / "home", download=True, **fake.checksums)


def test_offline_error_names_the_three_ways(isolated):
    with pytest.raises(DatasetNotFound) as error:
        load("fashion_mnist")
    text = str(error.value)
    assert "http://127.0.0.1:1/train-images-idx3-ubyte.gz could not be" in text
    assert "refused" in text
    for way in (
        "dataset-fashion-mnist",
        "download=True",
        "TFDS_DATA_DIR",
        str(isolated),
    ):
        assert way in text
    assert list(isolated.iterdir()) == []  # nothing half-done is left


def test_download_false_does_not_touch_the_network(tmp_path, no_sockets):
    with pytest.raises(DatasetNotFound, match="downloading is off"):
        load("fashion_mnist", data_dir=tmp_path, download=False)


def test_a_missing_file_is_named(fake, raw):
    (raw / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetNotFound, match="train-labels-idx1-ubyte.gz is missing"):
        load_fashion_mnist(raw, download=False, **fake.checksums)


@pytest.mark.parametrize("name", list(fashion.FILES))
def test_wrong_content_is_refused_by_name(fake, raw, name):
    changed = bytearray(fake.content[name])
    changed[-1] ^= 1
    (raw / name).write_bytes(gzip.compress(changed))
    with pytest.raises(DatasetCorrupted, match=f"{name}: its decompressed content"):
        load_fashion_mnist(raw, download=False, **fake.checksums)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-9], lambda b: b"no gzip", lambda b: b[:99] + b"\xff" * 99 + b[198:]],
)
def test_a_damaged_archive_is_named(fake, raw, damage):
    file = raw / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        DatasetCorrupted, match="train-images-idx3-ubyte.gz is no whole"
    ):
        load_fashion_mnist(raw, download=False, **fake.checksums)


def test_the_published_checksums_are_the_default(raw):
    with pytest.raises(
        DatasetCorrupted, match=fashion.FILES["train-images-idx3-ubyte.gz"]
    ):
        load("fashion_mnist", data_dir=raw)


def test_a_prepared_set_of_other_images_is_refused(fake, raw, isolated):
    load_fashion_mnist(raw, download=False, **fake.checksums)
    (isolated / "fashion_mnist_records.npz").unlink()
    with pytest.raises(DatasetCorrupted, match="3.0.1: its train set has sha256"):
        load("fashion_mnist", download=False)


def test_a_changed_or_cut_copy_is_refused(fake, raw, isolated):
    load_fashion_mnist(raw, download=False, **fake.checksums)
    cache = isolated / "fashion_mnist_records.npz"
    whole = cache.read_bytes()
    with np.load(cache) as arrays:
        train, test = arrays["train"].copy(), arrays["test"]
        train[5, 5] ^= 1
        np.savez(cache, train=train, test=test)
    with pytest.raises(DatasetCorrupted, match="records.npz: its train set has"):
        load_fashion_mnist(None, download=False, **fake.checksums)
    cache.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetCorrupted, match=r"remove it, and it is written again"):
        load_fashion_mnist(None, download=False, **fake.checksums)
    cache.unlink()
    load_fashion_mnist(None, download=False, **fake.checksums)
    assert cache.read_bytes() == whole


def test_a_prepared_set_that_cannot_be_written_beside_is_only_slower(
    fake, raw, isolated, monkeypatch
):
    def refuse(*paths):
        raise PermissionError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    load_fashion_mnist(raw, download=False, **fake.checksums)
    again = load_fashion_mnist(None, download=False, **fake.checksums)
    assert as_rows(again.test) == fake.records["test"]
    assert not list(isolated.glob("*.npz")) and not list(isolated.glob("tmp*"))


def test_a_set_in_a_format_of_tensorflow_is_refused(fake, raw, isolated):
    load_fashion_mnist(raw, download=False, **fake.checksums)
    (isolated / "fashion_mnist_records.npz").unlink()
    info = isolated / "fashion_mnist" / "3.0.1" / "dataset_info.json"
    content = json.loads(info.read_text()) | {"fileFormat": "tfrecord"}
    info.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="as tfrecord, which cannot be read without"):
        load_fashion_mnist(None, download=False, **fake.checksums)


def test_the_address_is_the_one_that_tensorflow_datasets_registers(monkeypatch):
    tfds = tensorflow_datasets()
    monkeypatch.undo()
    assert tfds.image_classification.FashionMNIST.URL == fashion.URL
    registered = tfds.core.download.checksums.get_all_url_infos()
    assert all(fashion.URL + name in registered for name in fashion.FILES)


def test_class_names_are_those_of_tensorflow_datasets(fake, raw, isolated):
    tfds = tensorflow_datasets()
    dataset = load_fashion_mnist(raw, download=False, **fake.checksums)
    builder = tfds.builder_from_directory(isolated / "fashion_mnist" / "3.0.1")
    features = builder.info.features
    assert tuple(features["label"].names) == dataset.classes
