# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST, prepared and read by tensorflow-datasets without TensorFlow."""

from __future__ import annotations

import gzip
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import _tfds
from ._dataset import Dataset, Split
from ._errors import DatasetCorrupted, DatasetNotFound, check_sha256
from ._hold_out import hold_out

# Where the Debian package dataset-fashion-mnist puts the raw files.
SYSTEM_DIR = Path("/usr/share/datasets/fashion-mnist")

# As registered in tensorflow-datasets (a test compares them).
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# sha256 of the decompressed files: Debian compressed them anew, with other headers.
FILES: Mapping[str, str] = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}

# sha256 of the records of each split (see ``_records``), from the files above.
RECORDS: Mapping[str, str] = {
    "train": "56016b2341e99c383df5cc0ed736f4afb12a6c90855d9f3d69981b294a0159ad",
    "test": "b73438e78d64c9f337edad19c3eea888b49d646dbe27b46e4e3177218f3581e7",
}

_PREPARED = Path("fashion_mnist", "3.0.1")  # as tensorflow-datasets names it
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_LICENSE = "MIT"
_CITATION = (
    "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for "
    "Benchmarking Machine Learning Algorithms, 2017, https://arxiv.org/abs/1708.07747"
)


def load_fashion_mnist(
    data_dir: Path | None,
    *,
    download: bool,
    files: Mapping[str, str] = FILES,
    records: Mapping[str, str] = RECORDS,
) -> Dataset:
    """55,000 images to train, 5,000 to validate, 10,000 to test; see ``load``.

    Args:
      data_dir: of raw files or of tensorflow-datasets.
      download: whether the network may be used.
      files: the raw files and the sha256 of their decompressed content.
      records: sha256 of the records of each split.
    """
    raw = next((d for d in (data_dir, SYSTEM_DIR) if d and _has_any(d, files)), None)
    home = _tfds.home(None if raw == data_dir else data_dir)
    cache = home / "fashion_mnist_records.npz"
    if cache.exists():
        source, splits = cache, _read_cache(cache)
    else:
        source = home / _PREPARED
        if not _tfds.is_prepared(source):
            _prepare(home, raw, data_dir, download, files)
        splits = {split: _drain(source, split) for split in records}
    for split, sha256 in records.items():
        content = splits[split].tobytes()
        check_sha256(content, sha256, path=source, what=f"{split} set")
    if source != cache:
        _write_cache(cache, splits)
    return _dataset(splits, source)


def _dataset(splits: Mapping[str, np.ndarray], source: Path) -> Dataset:
    """Images and labels out of the records, with the validation set carved out."""
    kept, held = hold_out(splits["train"][:, 0], every=12, seed=0)
    return Dataset(
        name="fashion_mnist",
        train=_split(splits["train"][kept]),
        validation=_split(splits["train"][held]),
        test=_split(splits["test"]),
        classes=_CLASSES,
        source=str(source),
        license=_LICENSE,
        citation=_CITATION,
    )


def _split(records: np.ndarray) -> Split:
    images = records[:, 1:].reshape(-1, 28, 28, 1)
    return Split(images / np.float32(255), records[:, 0].astype(np.int32))


def _has_any(folder: Path, files: Mapping[str, str]) -> bool:
    return any((folder / name).is_file() for name in files)


def _prepare(
    home: Path,
    raw: Path | None,
    data_dir: Path | None,
    download: bool,
    files: Mapping[str, str],
) -> None:
    """Write the set to ``home``, from the raw files or from the network."""
    if raw is None and not download:
        raise _not_found(home, data_dir, files, "downloading is off (download=False)")
    _tfds.tensorflow_datasets()  # before a long download, not after
    _tfds.check_writable(home)
    if raw is not None:
        _tfds.prepare(_builder(home, _read_raw(raw, files)))
        return
    with tempfile.TemporaryDirectory(dir=home) as temporary:
        try:
            for name in files:
                _tfds.fetch(URL + name, Path(temporary, name))
        except ConnectionError as error:
            raise _not_found(home, data_dir, files, str(error)) from error
        _tfds.prepare(_builder(home, _read_raw(Path(temporary), files)))


def _not_found(
    home: Path, data_dir: Path | None, files: Mapping[str, str], why: str
) -> DatasetNotFound:
    raw = ", ".join(str(d) for d in (data_dir, SYSTEM_DIR) if d)
    return DatasetNotFound(
        f"fashion_mnist is neither in {raw} (raw files) nor in {home / _PREPARED} "
        f"(prepared), and {why}. Any one of these gets it:\n"
        "  1. apt-get install dataset-fashion-mnist (Debian, Ubuntu), or a folder "
        f"with {', '.join(files)} as data_dir;\n"
        f"  2. download=True where {URL} can be reached;\n"
        "  3. a set that tensorflow-datasets prepared as array_record: the folder "
        "above fashion_mnist/ as data_dir or TFDS_DATA_DIR."
    )


def _read_raw(folder: Path, files: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays in the raw files, checked."""
    arrays = {}
    for name, sha256 in files.items():
        file = folder / name
        if not file.is_file():
            raise DatasetNotFound(
                f"{file} is missing: fashion_mnist is the files {', '.join(files)}."
            )
        try:
            content = gzip.decompress(file.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetCorrupted(
                f"{file} is no whole gzip file ({error}); get it again."
            ) from error
        check_sha256(content, sha256, path=file, what="decompressed content")
        arrays[name] = _parse_idx(content)
    return arrays


def _parse_idx(content: bytes) -> np.ndarray:
    """The idx format: three bytes of type, the rank, big-endian sizes, the data."""
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _builder(home: Path, arrays: Mapping[str, np.ndarray]) -> Any:
    """The builder of tensorflow-datasets, except that it needs no TensorFlow.

    Its name, version and features are the stock ones, so that anyone can read what it
    writes with ``tfds.data_source("fashion_mnist")``.
    """
    tfds = _tfds.tensorflow_datasets()
    import PIL.Image

    # Unregistered: the name keeps meaning the stock builder elsewhere.
    with tfds.core.registered.skip_registration():

        class FashionMNIST(tfds.image_classification.FashionMNIST):
            name = "fashion_mnist"

            def _split_generators(self, dl_manager):
                del dl_manager
                return {
                    "train": self._generate_examples("train"),
                    "test": self._generate_examples("t10k"),
                }

            def _generate_examples(self, part):
                images = arrays[f"{part}-images-idx3-ubyte.gz"]
                labels = arrays[f"{part}-labels-idx1-ubyte.gz"]
                for index, (image, label) in enumerate(
                    zip(images, labels, strict=True)
                ):
                    # An array would be encoded by TensorFlow, this by Pillow.
                    image = PIL.Image.fromarray(image)
                    yield index, {"image": image, "label": int(label)}

    return FashionMNIST(data_dir=home, file_format="array_record")


def _drain(folder: Path, split: str) -> np.ndarray:
    """A prepared split, read once, as records."""
    examples = _tfds.read(folder, split)
    rows = [np.append(example["label"], example["image"]) for example in examples]
    return _records(np.array(rows, np.uint8))


def _records(rows: np.ndarray) -> np.ndarray:
    """Rows of a label and its pixels, sorted by their bytes.

    tensorflow-datasets shuffles what it writes. Sorting makes both the checksum and the
    validation split independent of who prepared the set, and how.
    """
    rows = np.ascontiguousarray(rows)
    return np.sort(rows.view(f"V{rows.shape[1]}"), axis=0).view(np.uint8)


def _read_cache(file: Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as content, np.load(content) as arrays:
            return {"train": arrays["train"], "test": arrays["test"]}
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise DatasetCorrupted(
            f"{file} cannot be read ({error}). It is only a faster copy of the "
            "prepared set: remove it, and it is written again."
        ) from error


def _write_cache(file: Path, splits: Mapping[str, np.ndarray]) -> None:
    """Keep the records: reading 70,000 examples one by one takes seconds each time."""
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as temporary:
            whole = Path(temporary, file.name)
            np.savez(whole, train=splits["train"], test=splits["test"])
            os.replace(whole, file)  # so that no process ever sees half a file
    except OSError:
        pass  # A set prepared by others in a read-only folder is only slower to read.
