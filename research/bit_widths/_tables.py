# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .. import common
from ._rows import FLOAT, FOUR, LONGER, NARROW, PAIRS, QWIX, SCALES, SMALL, TIMES


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


# Names in tables and pictures, of method and start.
Names = Mapping[tuple[str, str], str]
AFTER: Names = {
    ("nearest", "after"): "nearest",
    ("nearest, mse", "after"): "nearest, mse scale",
    ("nearest, HQQ", "after"): "nearest, HQQ scale",
    ("GPTQ", "after"): "GPTQ",
    ("GPTQ, HQQ", "after"): "GPTQ, HQQ scale",
    (QWIX, "after"): "qwix",
}
TRAINED: Names = {
    ("LSQ", "float"): "trained on, LSQ scale",
    (FOUR, "float"): "trained on, LSQ scale, four levels",
    ("XNOR", "float"): "trained on, XNOR scale",
    (QWIX, "float"): "trained on, qwix",
}
FEW: Names = {(SMALL, "scratch"): "small float network, as many bytes as LSQ"}
OF_WEIGHTS: Names = {(name, "float"): name for name in SCALES}
OF_BOTH: Names = {(name, "float"): name for name in (*PAIRS, "XNOR, LSQ", QWIX)}
FEW_LEVELS = {
    "1": ("BinaryConnect", "XNOR", "Bi-Real", "LSQ"),
    "2": ("absmax", "mse", "TWN", "TTQ", "LSQ"),
}
BELOW = 12  # points below the float network, at which the picture is cut

Cells = Mapping[tuple[str, str, str], Sequence[Record]]  # method, bits, start


def cells(records: Sequence[Record]) -> Cells:
    """Records of the seeds by method, bits and start."""
    return common.grouped(records, "method", "bits", "start")


def nbytes(group: Sequence[Record]) -> str:
    """``12,345``: the mean of the seeds."""
    size = common.mean(group, "file_bytes")
    return "" if size is None else f"{size:,.0f}"


def markdown(records: Sequence[Record]) -> str:
    """All tables: of widths, of scales, of binary and ternary networks."""
    groups = cells(records)
    nearest: Names = {("nearest", "after"): "nearest"}
    floats: Names = {(FLOAT, "after"): FLOAT, (LONGER, "float"): LONGER, **nearest}
    wide, narrow = ("32", "bf16", "f16", "int16"), ("8", "4", "3", "2", "1")
    both = ("W8A8", "W4A4", "W3A3", "W2A2", "W1A1")
    of_wide = {(FLOAT, "after"): "*bytes, float*", **_bytes_of(nearest)}
    of_narrow = _bytes_of(
        {
            **nearest,
            ("GPTQ, HQQ", "after"): AFTER["GPTQ, HQQ", "after"],
            ("LSQ", "float"): TRAINED["LSQ", "float"],
        }
    )
    tables = [
        _table("*A. wide weights*", wide, groups, floats, of_wide),
        _table("*A. weights*", narrow, groups, {**AFTER, **TRAINED, **FEW}, of_narrow),
        _table("*B. weights, trained on*", narrow[1:4], groups, OF_WEIGHTS),
        _table("*B. weights and activations*", both, groups, OF_BOTH),
        _few_levels(groups),
        _longer(groups),
    ]
    return "\n\n".join(tables)


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Training against rounding afterwards and small floats; scales against simple ones."""
    groups = cells(records)
    bits = tuple(map(str, NARROW))
    both = tuple(f"W{b}A{b}" for b in NARROW[1:])
    low, few = ("1",), ("2",)
    lsq, xnor = ("LSQ", "float"), ("XNOR", "float")
    best = ("GPTQ, HQQ", "after")
    trained, after = "trained on, LSQ scale", "GPTQ with an HQQ scale, not trained on"
    pairs = [
        (trained, lsq, "a small float network of as many bytes", *FEW, (*bits, *low)),
        (trained, lsq, after, best, bits),
        ("GPTQ", ("GPTQ", "after"), "rounding to nearest", ("nearest", "after"), bits),
        (after, best, "rounding with an HQQ scale", ("nearest, HQQ", "after"), bits),
        (trained, lsq, "an absmax scale", ("absmax", "float"), bits[1:]),
        (
            "LSQ scales of weights and activations", ("LSQ, LSQ", "float"),
            "absmax and a moving average", ("absmax, moving average", "float"), both,
        ),
        ("TTQ", ("TTQ", "float"), "TWN's scale", ("TWN", "float"), few),
        ("LSQ, 1 bit", lsq, "XNOR's scale", xnor, low),
        ("Bi-Real", ("Bi-Real", "float"), "XNOR's gradient", xnor, low),
        ("BinaryConnect", ("BinaryConnect", "float"), "XNOR's scale", xnor, low),
    ]  # fmt: skip
    for row, (method, start), bar, (other, of), widths in pairs:
        yield common.Claim(
            row,
            bar,
            {
                f"at {b.partition('A')[2] or b} bits".replace(" 1 bits", " 1 bit"): (
                    groups.get((method, b, start), ()),
                    groups.get((other, b, of), ()),
                )
                for b in widths
            },
        )


def _bytes_of(names: Names) -> Names:
    return {key: f"*bytes, {name}*" for key, name in names.items()}


def _table(
    title: str,
    columns: Sequence[str],
    groups: Cells,
    accuracies: Names,
    sizes: Names = MappingProxyType({}),
) -> str:
    """A line a method, a column a width; lines of which nothing was run are left out."""
    lines = []
    for text_of, names in ((common.percent, accuracies), (nbytes, sizes)):
        for (method, start), name in names.items():
            row = [groups.get((method, bits, start), ()) for bits in columns]
            if any(row):
                lines.append([name, *(text_of(group) for group in row)])
    return common.markdown([title, *columns], lines)


def _few_levels(groups: Cells) -> str:
    """Binary and ternary networks: a line a method, with both starts."""
    columns = ("*C. few levels*", "bits", "from the float network", "from scratch")
    lines = []
    for bits, methods in FEW_LEVELS.items():
        for method in methods:
            row = [groups.get((method, bits, s), ()) for s in ("float", "scratch")]
            if row[0]:
                texts = map(common.percent, row)
                lines.append([method, bits, *texts, nbytes(row[0])])
    return common.markdown([*columns, "bytes"], lines)


def _longer(groups: Cells) -> str:
    """What was trained on for longer."""
    longer, ending = f"*trained on {TIMES} times as long*", f", {TIMES} times"
    lines = [
        [method.removesuffix(ending), bits, common.percent(group), nbytes(group)]
        for (method, bits, _), group in groups.items()
        if method.endswith(ending)
    ]
    return common.markdown([longer, "bits", "", "bytes"], lines)


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    return common.summary(records, ("method", "bits", "start"), ("file_bytes",))


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against bits, and the scales beside each other."""
    groups, narrow = cells(records), ("4", "3", "2")
    panels: list[tuple[str, Names, Sequence[str]]] = [
        (
            "weights, after training and in training",
            {**AFTER, **TRAINED},
            ("8", *narrow, "1"),
        ),
        ("scales of weights, trained on", OF_WEIGHTS, narrow),
        (
            "scales of weights and activations",
            OF_BOTH,
            [f"W{bits}A{bits}" for bits in narrow],
        ),
    ]
    base = common.values(groups[LONGER, "32", "float"])
    with common.figure(path, size=(15, 4.4), panels=3, dpi=120, sharey=True) as axes:
        for axis, (title, names, columns) in zip(axes, panels, strict=True):
            mean = common.band(axis, base, LONGER)
            axes[0].set(ylim=(mean - BELOW, mean + 1), ylabel="test accuracy, %")
            _lines(axis, groups, names, columns)
            axis.set_xticks(range(len(columns)), columns)
            axis.set(xlabel="bits")
            common.finish(axis, title)


def _lines(axis: Any, groups: Cells, names: Names, columns: Sequence[str]) -> None:
    for i, ((method, start), name) in enumerate(names.items()):
        shift = 0.03 * (i - len(names) / 2)
        points = {
            place + shift: common.values(groups[method, bits, start])
            for place, bits in enumerate(columns)
            if (method, bits, start) in groups
        }
        if points:
            style = "osv^Dx+"[i % 7] + ("-" if start == "float" else ":")
            common.error_bars(axis, points, name, fmt=style)
