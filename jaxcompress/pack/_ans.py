# SPDX-License-Identifier: Apache-2.0
"""Entropy coding: asymmetric numeral systems, by the `constriction` library.

The models are integer counts, which the payload carries; the decoder rebuilds the same
model from the same integers.

References:
  Duda, 2013, https://arxiv.org/abs/1311.2540; Bamler, 2022,
  https://arxiv.org/abs/2201.01741
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ._payload import CorruptPayload

# The coder works on int32; in parts, so that a byte array needs no fourfold copy.
_PART = 1 << 20


def encode(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Encode runs of symbols, each with the model that its own counts make.

    Args:
      runs: pairs of flat integer symbols in ``[0, k)`` and of how often each occurs.
    """
    coder = _constriction().stream.stack.AnsCoder()
    # A stack: what is encoded last is decoded first.
    for symbols, counts in reversed(runs):
        if np.count_nonzero(counts) > 1:
            model = _model(counts)
            for start, stop in reversed(list(_parts(symbols.size))):
                coder.encode_reverse(symbols[start:stop].astype(np.int32), model)
    # The last word is never zero, so its zero bytes need not be stored.
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class Decoder:
    """Gives back, run by run, what ``encode`` was given."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
        try:
            self._coder = _constriction().stream.stack.AnsCoder(words)
        except ValueError as error:
            raise CorruptPayload("the entropy-coded stream is damaged") from error

    def decode(self, counts: np.ndarray) -> Iterator[np.ndarray]:
        """The next run in parts; the counts add up to its length."""
        total = int(counts.sum())
        if np.count_nonzero(counts) > 1:
            model = _model(counts)
            for start, stop in _parts(total):
                yield self._coder.decode(model, stop - start)
        else:
            for start, stop in _parts(total):
                yield np.full(stop - start, np.argmax(counts), np.int32)

    def finish(self) -> None:
        """Check that the stream is used up."""
        if not self._coder.is_empty():
            raise CorruptPayload("the entropy-coded stream is longer than its array")


def _parts(size: int) -> Iterator[tuple[int, int]]:
    return ((i, min(i + _PART, size)) for i in range(0, size, _PART))


def _model(counts: np.ndarray) -> Any:
    # `perfect=True` would search for a better rounding: slow, and below 0.01 % here.
    return _constriction().stream.model.Categorical(
        counts.astype(np.float64), perfect=False
    )


def _constriction() -> Any:
    # Imported here, so that importing jaxcompress stays fast.
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            "packing needs `constriction`, a dependency of jaxcompress that is not "
            "installed here; run: pip install 'constriction>=0.5,<0.6'"
        ) from error
    return constriction
