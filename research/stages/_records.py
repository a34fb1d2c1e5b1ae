# SPDX-License-Identifier: Apache-2.0
"""Records of networks: what is counted in them must be what was asked for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcompress as jc

from .. import common
from ..data import Split
from ._config import Basis
from ._rows import NARROW, NARROW_BITS, STAGES, Row, setting_of
from ._train import Params, Runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One network.

    Attributes:
      part: of the study: ``"methods"``, ``"temperatures"`` or ``"weights"``.
      method: name of the row.
      bits: of weights; of a small network, whose bytes it has; None of floats.
      taught: by ``labels`` alone, or with a teacher, at which temperature.
      weight: of the teacher in the loss.
      seed: of everything random.
      accuracy: on the test set, after the last step.
      sparsity: counted in the weight matrices of what ships.
      levels: counted in the codes, of the matrix with the most; None of floats.
      weights: in the matrices.
      file_bytes: of the packed file.
    """

    part: str
    method: str
    bits: int | None
    taught: str
    weight: float
    seed: int
    accuracy: float
    sparsity: float
    levels: int | None
    weights: int
    file_bytes: int


class Counted(NamedTuple):
    """Of what ships."""

    params: Params  # dense floats, which the model is given
    sparsity: float  # of the weight matrices
    levels: int | None  # most codes of a matrix; None of floats
    weights: int  # in the matrices


def counted(config: Basis, row: Row, shipped: Params) -> Counted:
    """Count, and compare with the row.

    Raises:
      RunError: if there are more levels or fewer zeros than were asked for.
    """
    params = jc.dense(shipped)
    stages = STAGES.get(row.method, ())
    sparsity = common.sparsity_of(params)
    weights = sum(x.size for x in jax.tree.leaves(params) if x.ndim > 1)
    # A budget is rounded once a matrix.
    if any(s.prunes for s in stages) and sparsity < config.sparsity - 1e-3:
        raise common.RunError(f"{row.name}: {sparsity:.4f} of the weights are zero.")
    codes = [
        np.asarray(leaf.codes)
        for leaf in jax.tree.leaves(shipped, is_leaf=_is_coded)
        if _is_coded(leaf)
    ]
    levels = max((len(np.unique(c)) for c in codes), default=None)
    bits = NARROW_BITS if row.method == NARROW else row.bits
    if row.method == NARROW or any(s.quantizes for s in stages):
        if sum(c.size for c in codes) != weights or levels is None:
            raise common.RunError(f"{row.name}: not every weight is a code.")
        if bits is None or levels > 2**bits - 1:
            raise common.RunError(f"{row.name}: {levels} levels.")
    return Counted(params, sparsity, levels, weights)


def recorded(
    row: Row, seed: int, runs: Runs, shipped: Params, test: Split
) -> list[Record]:
    """The record of a network; it sees the test set once."""
    count = counted(runs.config, row, shipped)
    return [
        Record(
            part=row.part,
            method=row.method,
            bits=row.bits,
            taught=row.taught,
            weight=row.teaching.weight,
            seed=seed,
            accuracy=common.accuracy(runs.model, count.params, test),
            sparsity=count.sparsity,
            levels=count.levels,
            weights=count.weights,
            file_bytes=common.file_bytes(shipped),
        )
    ]


def of_row(
    runs: Runs, test: Split, records: Sequence[Record], row: Row, seed: int
) -> list[Record]:
    """The network of a row, if no other row has made it."""
    for other in records:  # a row of two tables is one network
        if row.makes(other) and other.seed == seed:
            return [dataclasses.replace(other, part=row.part)]
    setting = setting_of(runs.config.chosen.settings, row.method, row.bits)
    shipped = runs.shipped(
        row.method, seed, bits=row.bits, setting=setting, teaching=row.teaching
    )
    return recorded(row, seed, runs, shipped, test)


def each(make: Any, rows: Iterable[Row], seeds: int) -> Iterator[common.Job[Record]]:
    """A job a row and a seed."""
    for row, seed in itertools.product(rows, range(seeds)):
        title = f"{row.part}: {row.name}, {seed}"
        yield common.Job(title, partial(make, row, seed))


def _is_coded(leaf: Any) -> bool:
    return isinstance(leaf, jc.QArray)


Cells = dict[tuple[str, int | None, str], list[Record]]  # method, bits, taught


def part_of(records: Sequence[Record], part: str) -> Cells:
    """Records of a part by method, bits and teacher, in the order of the runs."""
    of_part = (record for record in records if record.part == part)
    return common.grouped(of_part, "method", "bits", "taught")


def name_of(method: str, bits: int | None) -> str:
    """``jointly, 2 bits``."""
    return method if bits is None else f"{method}, {bits} bits"


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    keys = ("part", "method", "bits", "taught", "weight", "weights")
    rows = common.summary_rows(records, keys, ("sparsity", "file_bytes"))
    for row in rows:
        row["bits_a_weight"] = 8 * row["file_bytes"] / row.pop("weights")
    return {"rows": rows, "records": common.as_json(records)}
