# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, as the README has it, and the same as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import common
from ._rows import ALONE, DIVERGENCES, Row, rows

TEACHER, WARM = "teacher", "warm student"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One network; bits are a character, on the test set, behind the prompts.

    Attributes:
      row: name of the row.
      seed: of everything random.
      bits: cross-entropy with the text.
      kl: of the network from the teacher on the text.
      own_kl: the same on what the network writes.
      own_reverse_kl: the reverse one there.
      likely: bits that the network's writing costs the teacher.
      entropy: bits that it costs the network.
      milliseconds: a step of training takes; None of what is not trained on.
    """

    row: str
    seed: int
    bits: float
    kl: float
    own_kl: float
    own_reverse_kl: float
    likely: float
    entropy: float
    milliseconds: float | None


COLUMNS = {
    "bits": "text",
    "kl": "kl, text",
    "own_kl": "kl, own",
    "own_reverse_kl": "reverse kl, own",
    "likely": "own, by the teacher",
    "entropy": "own, by itself",
    "milliseconds": "ms a step",
}


STYLES = {"cross-entropy": "s", "kl": "o", "reverse_kl": "^", "jensen_shannon": "D"}


MEASURES = {
    "in bits of the text": common.Measure("bits", "bits", higher_is_better=False),
    "in reverse kl on its own writing": common.Measure(
        "own_reverse_kl", "bits", higher_is_better=False
    ),
}


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """A teacher against the text alone, and own sequences against the text's."""
    groups = common.grouped(records, "row")
    bars = {ALONE: "the text alone for as many steps"}
    for loss in DIVERGENCES:
        bars[Row("text", loss)] = "the same loss on the text"
    for place, measure in MEASURES.items():
        for row in rows(quick=False):
            off = ALONE if row.writer != "student" else Row("text", row.loss)
            if row != off and row.name in groups and off.name in groups:
                both = {place: (groups[row.name], groups[off.name])}
                yield common.Claim(row.name, bars[off], both, measure)


def markdown(records: Sequence[Record]) -> str:
    """A line a row."""
    return common.markdown(
        ["bits a character", *COLUMNS.values()],
        [
            [name, *(_text(common.values(group, field), field) for field in COLUMNS)]
            for name, group in common.grouped(records, "row").items()
        ],
    )


def _text(values: Sequence[float], field: str) -> str:
    if not values:
        return ""
    mean, spread = common.mean_and_spread(values)
    if field == "milliseconds":
        return f"{mean:.1f}"
    return f"{mean:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    rows = []
    for name, group in common.grouped(records, "row").items():
        row: dict[str, Any] = {"row": name}
        for field in COLUMNS:
            if values := common.values(group, field):
                mean, spread = common.mean_and_spread(values)
                row[field] = {"mean": mean, "spread": spread}
        rows.append(row)
    return {"rows": rows, "records": common.as_json(records)}


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: what rows give on the text, against their own writing."""
    labels = {
        "own_reverse_kl": "reverse kl from the teacher, own writing, bits",
        "likely": "own writing, by the teacher, bits a character",
    }
    groups = common.grouped(records, "row")
    with common.figure(path, size=(12, 4.6), panels=2, dpi=120) as axes:
        for axis, (field, label) in zip(axes, labels.items(), strict=True):
            for i, (name, group) in enumerate(groups.items()):
                if name in (TEACHER, WARM):
                    continue
                at, error = common.mean_and_spread(common.values(group, "bits"))
                common.error_bars(
                    axis, {at: common.values(group, field)}, name, scale=1,
                    xerr=[error or 0.0], fmt=STYLES[name.rsplit(", ", 1)[1]],
                    color=f"C{i % 10}", markersize=7, linewidth=1,
                    fillstyle="full" if name.startswith("own") else "none",
                )  # fmt: skip
            axis.set(xlabel="test text, bits a character", ylabel=label)
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=8)
