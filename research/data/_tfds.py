# SPDX-License-Identifier: Apache-2.0
"""What both prepared sets need of tensorflow-datasets, without TensorFlow."""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any


def tensorflow_datasets() -> Any:
    """The module, imported when first needed: most users of ``digits`` lack it.

    Raises:
      ImportError: if it, or what it needs and does not declare, is missing.
    """
    try:
        import importlib_resources  # noqa: F401  # tfds reads its checksums with it
        import PIL  # noqa: F401  # tfds decodes images with it
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"This data set needs {error.name}, of the research extra: "
            'pip install -e ".[research]"'
        ) from error
    return tfds


def home(data_dir: Path | None) -> Path:
    """The tensorflow-datasets folder: the given one or, as in tfds, the default."""
    if data_dir is not None:
        return data_dir
    default = Path.home() / "tensorflow_datasets"
    return Path(os.environ.get("TFDS_DATA_DIR", default)).expanduser()


def is_prepared(folder: Path) -> bool:
    """Whether a finished set is in this folder, ``<home>/<name>/<version>``."""
    return (folder / "dataset_info.json").is_file()


def check_writable(folder: Path) -> None:
    """Make the folder, or say which one to give instead."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(
            f"The data set cannot be prepared in {folder} ({error.strerror}). Set "
            "TFDS_DATA_DIR to a folder that can be written, or give it as data_dir."
        ) from error


def prepare(builder: Any) -> None:
    """Write the set of a builder as array_record; it has its raw files already."""
    tfds = tensorflow_datasets()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config, file_format="array_record")


def read(folder: Path, split: str) -> Any:
    """The examples of a prepared split, as a sequence of dicts of numpy arrays.

    Raises:
      ValueError: if the set was prepared in a format that only TensorFlow reads.
    """
    builder = tensorflow_datasets().builder_from_directory(folder)
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise ValueError(
            f"{folder} was prepared as {builder.info.file_format.value}, which cannot "
            "be read without TensorFlow. Give another data_dir, where it is prepared "
            "anew as array_record."
        ) from error


def description(folder: Path) -> str:
    """What a prepared set says of itself."""
    return tensorflow_datasets().builder_from_directory(folder).info.description


def fetch(url: str, file: Path) -> None:
    """Download one file.

    Not by the download manager of tfds, which tries for over three minutes before it
    tells that there is no network.

    Raises:
      ConnectionError: if that fails, for whatever reason.
    """
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, file.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url} could not be downloaded: {error}") from error
