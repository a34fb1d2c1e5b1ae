# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .. import old_common as common
from ._rows import FLOAT, FOUR, LONGER, PAIRS, QWIX, SCALES, TIMES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One network.

    Attributes:
      method: name of the row.
      bits: of weights, or of weights and activations: ``"W4A4"``.
      start: ``"after"``, ``"float"`` or ``"scratch"``, see ``Row``.
      seed: of everything random.
      accuracy: on the test set.
      file_bytes: of the packed file; None of qwix.
    """

    method: str
    bits: str
    start: str
    seed: int
    accuracy: float
    file_bytes: int | None


Cell = tuple[str, str, str]  # method, bits, start
Cells = Mapping[Cell, Sequence[Record]]
# Names in tables and pictures, of method and start.
AFTER: dict[tuple[str, str], str] = {
    ("nearest", "after"): "nearest",
    ("nearest, mse", "after"): "nearest, mse scale",
    ("nearest, HQQ", "after"): "nearest, HQQ scale",
    ("GPTQ", "after"): "GPTQ",
    ("GPTQ, HQQ", "after"): "GPTQ, HQQ scale",
    (QWIX, "after"): "qwix",
}
TRAINED = {
    ("LSQ", "float"): "trained on, LSQ scale",
    (FOUR, "float"): "trained on, LSQ scale, four levels",
    ("XNOR", "float"): "trained on, XNOR scale",
    (QWIX, "float"): "trained on, qwix",
}
OF_WEIGHTS = {(name, "float"): name for name in SCALES}
OF_BOTH = {
    **{(name, "float"): name for name in PAIRS},
    ("XNOR, LSQ", "float"): "XNOR, LSQ",
    (QWIX, "float"): QWIX,
}
BINARY = ("BinaryConnect", "XNOR", "Bi-Real", "LSQ")
TERNARY = ("absmax", "mse", "TWN", "TTQ", "LSQ")


def cells(records: Sequence[Record]) -> dict[Cell, list[Record]]:
    """Records of the seeds by method, bits and start, in the order of the runs."""
    grouped: dict[Cell, list[Record]] = {}
    for r in records:
        grouped.setdefault((r.method, r.bits, r.start), []).append(r)
    return grouped


def accuracies(group: Sequence[Record]) -> list[float]:
    """Those of the seeds."""
    return [r.accuracy for r in group]


def percent(group: Sequence[Record]) -> str:
    """``97.22 ± 0.28``."""
    return common.text_of(accuracies(group))


def nbytes(group: Sequence[Record]) -> str:
    """``12,345``: the mean of the seeds."""
    sizes = [r.file_bytes for r in group if r.file_bytes is not None]
    return f"{statistics.fmean(sizes):,.0f}" if sizes else ""


def markdown(records: Sequence[Record]) -> str:
    """All tables: of widths, of scales, of binary and ternary networks."""
    grouped = cells(records)
    floats = {(FLOAT, "after"): FLOAT, (LONGER, "float"): LONGER}
    nearest = {("nearest", "after"): "nearest"}
    sizes = {
        ("nearest", "after"): "*bytes, nearest*",
        ("GPTQ, HQQ", "after"): "*bytes, GPTQ, HQQ scale*",
        ("LSQ", "float"): "*bytes, trained on, LSQ scale*",
    }
    of_wide = {
        (FLOAT, "after"): "*bytes, float*",
        ("nearest", "after"): "*bytes, nearest*",
    }
    wide, narrow = ("32", "bf16", "f16", "int16"), ("8", "4", "3", "2", "1")
    both = ("W8A8", "W4A4", "W3A3", "W2A2", "W1A1")
    tables = [
        _table("*A. wide weights*", wide, grouped, floats | nearest, of_wide),
        _table("*A. weights*", narrow, grouped, AFTER | TRAINED, sizes),
        _table("*B. weights, trained on*", narrow[1:4], grouped, OF_WEIGHTS),
        _table("*B. weights and activations*", both, grouped, OF_BOTH),
        _few(grouped),
        _longer(grouped),
    ]
    return "\n\n".join(tables)


def _table(
    title: str,
    columns: Sequence[str],
    grouped: Cells,
    accuracy: Mapping[tuple[str, str], str],
    sizes: Mapping[tuple[str, str], str] | None = None,
) -> str:
    """A line a method, a column a width; lines of which nothing was run are left out."""
    lines = [_line(title, columns), "|".join(["", *["---"] * (len(columns) + 1), ""])]
    for show, methods in ((percent, accuracy), (nbytes, sizes or {})):
        for (method, start), name in methods.items():
            groups = [grouped.get((method, bits, start), ()) for bits in columns]
            if any(groups):
                lines.append(_line(name, [show(g) if g else "" for g in groups]))
    return "\n".join(lines)


def _few(grouped: Cells) -> str:
    """Binary and ternary networks: a line a method, with both starts."""
    columns = ("bits", "from the float network", "from scratch", "bytes")
    lines = [_line("*C. few levels*", columns), "|---|---|---|---|---|"]
    for bits, methods in (("1", BINARY), ("2", TERNARY)):
        for method in methods:
            groups = [
                grouped.get((method, bits, start), ()) for start in ("float", "scratch")
            ]
            if groups[0]:
                texts = [percent(g) if g else "" for g in groups]
                lines.append(_line(method, [bits, *texts, nbytes(groups[0])]))
    return "\n".join(lines)


def _longer(grouped: Cells) -> str:
    """What was trained on for longer."""
    lines = [_line(f"*trained on {TIMES} times as long*", ("bits", "", "bytes"))]
    lines.append("|---|---|---|---|")
    for (method, bits, _), group in grouped.items():
        if method.endswith(f", {TIMES} times"):
            name = method.removesuffix(f", {TIMES} times")
            lines.append(_line(name, [bits, percent(group), nbytes(group)]))
    return "\n".join(lines)


def _line(name: str, texts: Sequence[str]) -> str:
    return "| " + " | ".join([name, *texts]) + " |"


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    made = []
    for (method, bits, start), group in cells(records).items():
        mean, spread = common.mean_and_spread(accuracies(group))
        sizes = [r.file_bytes for r in group if r.file_bytes is not None]
        made.append(
            {
                "method": method,
                "bits": bits,
                "start": start,
                "accuracy": mean,
                "spread": spread,
                "file_bytes": statistics.fmean(sizes) if sizes else None,
            }
        )
    return {"rows": made, "records": [dataclasses.asdict(r) for r in records]}
