# SPDX-License-Identifier: Apache-2.0
"""Entropy coding with asymmetric numeral systems, by the `constriction` library.

The payload carries integer counts; encoder and decoder build the same model from them.

References:
  Duda, 2013, https://arxiv.org/abs/1311.2540; Bamler, 2022,
  https://arxiv.org/abs/2201.01741
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ._payload import Bytes, CorruptPayload, Reader, varint

# The coder needs int32; coding in parts avoids a fourfold copy of a byte array.
_PART = 1 << 20


class Symbols(Protocol):
    """Flat integers in ``[0, k)``: an array, or what makes any part of one when asked."""

    @property
    def size(self) -> int:
        """Number of symbols."""
        ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


def encode(runs: Sequence[tuple[Symbols, np.ndarray]]) -> memoryview:
    """Encode runs of symbols, each with a model made from its own counts.

    Args:
      runs: pairs ``(symbols, counts)``: the symbols, which are read part by part, and how
        often each occurs.
    """
    return encode_with([], runs)


def encode_with(
    flags: Sequence[tuple[np.ndarray, np.ndarray]],
    runs: Sequence[tuple[Symbols, np.ndarray]],
) -> memoryview:
    """Encode flags, each with a probability of its own, and then runs of symbols.

    Args:
      flags: pairs ``(flags, probabilities)``: bool and float64 arrays of one length.
      runs: as for ``encode``.
    """
    coder = _constriction().stream.stack.AnsCoder()
    # The coder is a stack: the last symbol encoded is decoded first.
    for symbols, counts in reversed(runs):
        if np.count_nonzero(counts) > 1:
            model = _model(counts)
            for start, stop in reversed(list(parts(symbols.size))):
                coder.encode_reverse(symbols[start:stop].astype(np.int32), model)
    for bits, probabilities in reversed(flags):
        coder.encode_reverse(bits.astype(np.int32), _flag_model(), probabilities)
    # The last word is never zero, so its zero bytes need not be stored.
    # The coder must be gone before the words are copied.
    words = coder.get_compressed().astype("<u4", copy=False)
    del coder
    coded = words.view(np.uint8)
    size = coded.size
    while size and not coded[size - 1]:
        size -= 1
    return coded[:size].data


class Decoder:
    """Decode the runs of ``encode``, one by one."""

    def __init__(self, data: Bytes) -> None:
        words = np.frombuffer(bytes(data) + bytes(-len(data) % 4), "<u4").astype(
            np.uint32
        )
        try:
            self._coder = _constriction().stream.stack.AnsCoder(words)
        except ValueError as error:
            raise CorruptPayload("the entropy-coded stream is damaged") from error

    def decode(self, counts: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the next run in parts; the counts sum to its length."""
        for start, stop in parts(int(counts.sum())):
            yield self.draw(counts, stop - start)

    def draw(self, weights: np.ndarray, size: int) -> np.ndarray:
        """Return so many of the next symbols, which occur in proportion to weights."""
        if np.count_nonzero(weights) > 1:
            return self._coder.decode(_model(weights), size)
        return np.full(size, np.argmax(weights), np.int32)

    def flags(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the next flags, each of which is set with a probability of its own."""
        return self._coder.decode(_flag_model(), probabilities).astype(bool)

    def finish(self) -> None:
        """Check that nothing is left in the stream."""
        if not self._coder.is_empty():
            raise CorruptPayload("the entropy-coded stream is longer than its array")


def parts(size: int, width: int = 1) -> Iterator[tuple[int, int]]:
    """Yield the bounds of parts of an array, which are worked on in bounded memory.

    Args:
      size: how long the array is.
      width: how many elements there are at each index.
    """
    step = max(1, _PART // width)
    return ((i, min(i + step, size)) for i in range(0, size, step))


def histogram(flat: np.ndarray) -> np.ndarray:
    """Return how often each pattern of one or two bytes occurs, in bounded memory."""
    counts = np.zeros(1 << 8 * flat.dtype.itemsize, np.int64)
    for start, stop in parts(flat.size):
        counts += np.bincount(flat[start:stop], minlength=counts.size)
    return counts


def write_table(alphabet: np.ndarray, counts: np.ndarray) -> bytes:
    """Return an ascending alphabet and a count of each of its symbols as varints."""
    gaps = [int(alphabet[0]), *np.diff(alphabet).tolist()]
    return b"".join(map(varint, [alphabet.size, *gaps, *counts.tolist()]))


def read_table(reader: Reader, size: int) -> tuple[list[int], list[int]]:
    """Invert ``write_table``, after its size was read and checked.

    A damaged size must not determine how long this runs.
    """
    alphabet = list(itertools.accumulate(reader.varint() for _ in range(size)))
    return alphabet, [reader.varint() for _ in range(size)]


def _model(counts: np.ndarray) -> Any:
    # `perfect=True` searches for a better rounding: slow, and gains below 0.01 % here.
    return _constriction().stream.model.Categorical(
        counts.astype(np.float64), perfect=False
    )


def _flag_model() -> Any:
    return _constriction().stream.model.Bernoulli(perfect=False)


def _constriction() -> Any:
    # Imported here to keep `import jaxcompress` fast.
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            "packing needs `constriction`, a dependency of jaxcompress that is not "
            "installed; run: pip install 'constriction>=0.5,<0.6'"
        ) from error
    return constriction
