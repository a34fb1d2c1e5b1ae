# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, strategies as st

from research.data import _characters
from research.data._characters import CONTEXT, UNKNOWN, characters

# More kinds in the held-out parts than in training, so that some are unknown.
train_texts = st.text("abc\nö", min_size=CONTEXT + 1, max_size=3 * CONTEXT)
held_texts = st.text("abc\nöxé😀", min_size=CONTEXT + 1, max_size=3 * CONTEXT)


def decode(ids, classes):
    return "".join(classes[i] for i in ids)


@given(train_texts, held_texts, held_texts)
def test_examples_are_every_window_of_their_own_part(train, validation, test):
    splits, classes = characters([train, validation, test])
    for text, split in zip((train, validation, test), splits, strict=True):
        known = "".join(c if c in train else UNKNOWN for c in text)
        windows = [known[i : i + CONTEXT + 1] for i in range(len(known) - CONTEXT)]
        rows = np.concatenate([split.x, split.y[:, None]], axis=1)
        assert [decode(row, classes) for row in rows] == windows


@given(train_texts, held_texts)
def test_the_vocabulary_is_that_of_the_training_part(train, held):
    (first, *_), classes = characters([train, held, held])
    assert classes == (UNKNOWN, *sorted(set(train)))
    assert first.x.min() > 0 and first.y.min() > 0
    assert first.x.max() < len(classes)
    assert (first.x.dtype, first.y.dtype) == (np.int32, np.int32)


def test_limits_spread_the_examples_evenly(monkeypatch):
    monkeypatch.setattr(_characters, "LIMITS", (10, 3, 1000))
    text = "".join(map(chr, range(1000, 2000)))
    (train, validation, test), _ = characters([text] * 3)
    number = 1000 - CONTEXT
    assert train.x[:, 0].tolist() == [1 + i * number // 10 for i in range(10)]
    assert (len(validation), len(test)) == (3, number)


def test_a_short_text_is_refused():
    long = "a" * (CONTEXT + 1)
    with pytest.raises(ValueError, match="one part of it has 64 characters"):
        characters([long, long[:-1], long])
