# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from .. import old_common as common


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


Cell = tuple[str, str, int | None, str]  # part, method, bits, taught
Cells = dict[Cell, list[Record]]


def cells(records: Sequence[Record]) -> Cells:
    """Records of the seeds by part, method, bits and teacher, in the order of the runs."""
    grouped: Cells = {}
    for r in records:
        grouped.setdefault((r.part, r.method, r.bits, r.taught), []).append(r)
    return grouped


def accuracies(group: Sequence[Record]) -> list[float]:
    """Those of the seeds."""
    return [r.accuracy for r in group]


def percent(group: Sequence[Record]) -> str:
    """``97.22 ± 0.28``; nothing of nothing."""
    return common.text_of(accuracies(group)) if group else ""


def pairs(records: Sequence[Record]) -> dict[tuple[str, int | None], list[Any]]:
    """Of the methods: the networks with labels, and those with a teacher."""
    made: dict[tuple[str, int | None], list[Any]] = {}
    for (part, method, bits, taught), group in cells(records).items():
        if part == "methods":
            pair = made.setdefault((method, bits), [[], []])
            pair[taught != "labels"] = group
    return made


def markdown(records: Sequence[Record]) -> str:
    """All tables: of methods, of temperatures, and with weights chosen for them."""
    tables = [
        _methods(records),
        _by_teacher("*temperatures*", "temperatures", records, weights=False),
        _by_teacher("*weights chosen for each*", "weights", records, weights=True),
    ]
    return "\n\n".join(table for table in tables if table)


def _methods(records: Sequence[Record]) -> str:
    columns = ("bits", "labels", "distilled", "zeros, %", "bytes", "bits a weight")
    lines = [_line("*methods*", columns), "|---" * 7 + "|"]
    # Few bits below many; floats first.
    by_bits = sorted(pairs(records).items(), key=lambda item: -(item[0][1] or 32))
    for (method, bits), (labels, distilled) in by_bits:
        size = labels or distilled
        nbytes = statistics.fmean(r.file_bytes for r in size)
        zeros = 100 * statistics.fmean(r.sparsity for r in size)
        texts = [
            "32" if bits is None else str(bits),
            percent(labels),
            percent(distilled),
            f"{zeros:.1f}",
            f"{nbytes:,.0f}",
            f"{8 * nbytes / size[0].weights:.2f}",
        ]
        lines.append(_line(method, texts))
    return "\n".join(lines)


def _by_teacher(
    title: str, part: str, records: Sequence[Record], *, weights: bool
) -> str:
    """A line a network, a column a teacher; nothing of nothing."""
    grouped = {
        key[1:]: group for key, group in cells(records).items() if key[0] == part
    }
    columns = list(dict.fromkeys(taught for _, _, taught in grouped))
    networks = list(dict.fromkeys((method, bits) for method, bits, _ in grouped))
    if not networks:
        return ""
    lines = [_line(title, columns), "|---" * (len(columns) + 1) + "|"]
    for method, bits in networks:
        groups = [grouped.get((method, bits, taught), []) for taught in columns]
        name = method if bits is None else f"{method}, {bits} bits"
        lines.append(_line(name, [percent(group) for group in groups]))
        if weights:
            texts = [f"{group[0].weight:g}" if group else "" for group in groups]
            lines.append(_line("*weight of the teacher*", texts))
    return "\n".join(lines)


def _line(name: str, texts: Sequence[str]) -> str:
    return "| " + " | ".join([name, *texts]) + " |"


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    made = []
    for (part, method, bits, taught), group in cells(records).items():
        mean, spread = common.mean_and_spread(accuracies(group))
        nbytes = statistics.fmean(r.file_bytes for r in group)
        made.append(
            {
                "part": part,
                "method": method,
                "bits": bits,
                "taught": taught,
                "weight": group[0].weight,
                "accuracy": mean,
                "spread": spread,
                "sparsity": statistics.fmean(r.sparsity for r in group),
                "file_bytes": nbytes,
                "bits_a_weight": 8 * nbytes / group[0].weights,
            }
        )
    return {"rows": made, "records": [dataclasses.asdict(r) for r in records]}
