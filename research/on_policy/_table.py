# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, as the README has it, and the same as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .. import old_common as common

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


def cells(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of the seeds by row, in the order of the runs."""
    grouped: dict[str, list[Record]] = {}
    for r in records:
        grouped.setdefault(r.row, []).append(r)
    return grouped


def values(group: Sequence[Record], field: str) -> list[float]:
    """Those of the seeds, of networks that have one."""
    found = [getattr(r, field) for r in group]
    return [x for x in found if x is not None]


def markdown(records: Sequence[Record]) -> str:
    """A line a row."""
    lines = [_line("bits a character", tuple(COLUMNS.values()))]
    lines.append("|" + "---|" * (len(COLUMNS) + 1))
    for name, group in cells(records).items():
        texts = [_text(values(group, field), field) for field in COLUMNS]
        lines.append(_line(name, texts))
    return "\n".join(lines)


def _text(found: Sequence[float], field: str) -> str:
    if not found:
        return ""
    mean, spread = common.mean_and_spread(found)
    if field == "milliseconds":
        return f"{mean:.1f}"
    return f"{mean:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _line(name: str, texts: Sequence[str]) -> str:
    return "| " + " | ".join([name, *texts]) + " |"


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    made = []
    for name, group in cells(records).items():
        row: dict[str, Any] = {"row": name}
        for field in COLUMNS:
            found = values(group, field)
            if found:
                mean, spread = common.mean_and_spread(found)
                row[field] = {"mean": mean, "spread": spread}
        made.append(row)
    return {"rows": made, "records": [dataclasses.asdict(r) for r in records]}
