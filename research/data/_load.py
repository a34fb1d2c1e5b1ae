# SPDX-License-Identifier: Apache-2.0
"""One function to load any of the data sets by name."""

from __future__ import annotations

import os
from pathlib import Path

from ._dataset import Dataset
from ._digits import load_digits
from ._fashion_mnist import load_fashion_mnist
from ._shakespeare import load_shakespeare

NAMES = ("digits", "fashion_mnist", "shakespeare")


def load(
    name: str = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Read a whole data set into memory.

    - ``digits``: 1,257 / 180 / 360 images of 8 x 8 x 1. In this package; needs nothing.
    - ``fashion_mnist``: 55,000 / 5,000 / 10,000 images of 28 x 28 x 1.
    - ``shakespeare``: 200,000 / 10,000 / 10,000 pairs of 64 characters and the next.
      The last tenth of the text is validation and test. The text is the one of the
      first of these that is there: ``data_dir``, a prepared set, the download; see
      ``Dataset.source``.

    Images are float32 in [0, 1]: four times the memory of bytes (220 MB for
    ``fashion_mnist``), for batches that need no conversion. The validation examples
    and their order do not depend on where a set was read from.

    The last two are prepared once by tensorflow-datasets, in array_record format and
    without TensorFlow, in ``data_dir``, ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``,
    and their content is checked against published checksums.

    Args:
      name: one of ``NAMES``.
      data_dir: a folder with the raw files, or a tensorflow-datasets folder, which is
        filled if the set is not in it. ``digits`` does not need it.
      download: whether the network may be used if the set is not on this machine.

    Returns:
      The data set.

    Raises:
      ValueError: for an unknown name.
      DatasetNotFound: if the set is not there; the text says how to get it.
      DatasetCorrupted: if a file is not the published one; the text names it.
      ImportError: if the packages of the ``research`` extra are needed and missing.

    Example:
      >>> digits = load("digits")
      >>> len(digits.train), digits.input_shape, digits.num_classes
      (1257, (8, 8, 1), 10)
    """
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if name == "digits":
        return load_digits()
    if name == "fashion_mnist":
        return load_fashion_mnist(folder, download=download)
    if name == "shakespeare":
        return load_shakespeare(folder, download=download)
    raise ValueError(f"There is no data set {name!r}; choose one of {NAMES}.")
