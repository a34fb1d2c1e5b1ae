# SPDX-License-Identifier: Apache-2.0
"""What became slower or faster between two sets of runs, beyond their noise.

A row is compared by its ratio to the baseline of its own run, which neighbors on the
machine move least. Its interval is that of the quartiles, over all runs of a file. A row
became slower if its interval lies above the old one, and if its median moved by more than
the noise floor: what the baseline's second entry differs from the first, in any run.

The baseline has no ratio but to itself. Its times are compared, the smallest of a run with
the 90th percentile of the others, and only if both were measured on the same kind of
machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._results import MACHINE, Run, read

_NOT_SETTINGS = (*MACHINE, "versions", "commit", "rows", "rounds")
_NOT_SETTINGS += ("command", "date", "load", "missing")
_AGAIN = " (again)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What became of a row.

    Attributes:
      run: the benchmark, with its settings.
      row: its name.
      verdict: ``"slower"``, ``"faster"``, ``"same"``, or why it is not compared.
      old: of its interval before, the lower end, the median and the upper end.
      new: the same now.
      noise: how far medians may differ without meaning.
      seconds: True for times in seconds, False for ratios.
    """

    run: str
    row: str
    verdict: str
    old: tuple[float, float, float] | None = None
    new: tuple[float, float, float] | None = None
    noise: float = 0.0
    seconds: bool = False

    def __str__(self) -> str:
        if self.old is None or self.new is None:
            return f"{self.verdict}: {self.run}: {self.row}"
        change = self.new[1] / self.old[1] - 1
        what = "time" if self.seconds else "ratio to the baseline"
        return (
            f"{self.verdict}: {self.run}: {self.row}: {change:+.1%} {what}, "
            f"{_shown(self.old)} -> {_shown(self.new)}, noise {self.noise:.1%}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two files; the exit status is 1 if something became slower."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("old", type=Path, help="results or output, before")
    made.add_argument("new", type=Path, help="results or output, now")
    made.add_argument("--all", action="store_true", help="show what is the same, too")
    settings = made.parse_args(argv)
    try:
        changes = compare(read(settings.old), read(settings.new))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for change in changes:
        if settings.all or change.verdict != "same":
            print(change)
    counts = {v: sum(c.verdict == v for c in changes) for v in _VERDICTS}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["slower"] else 0


_VERDICTS = ("slower", "faster", "same")


def compare(old: Sequence[Run], new: Sequence[Run]) -> list[Change]:
    """Compare every row of runs with the same benchmark and settings."""
    before, now = _grouped(old), _grouped(new)
    changes = []
    for run in dict.fromkeys([*before, *now]):
        if run not in before or run not in now:
            where = "OLD" if run in before else "NEW"
            changes.append(Change(run=run, row="all rows", verdict=f"only in {where}"))
        else:
            changes += _compare(run, before[run], now[run])
    return changes


def _grouped(runs: Iterable[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = [
            f"{name}={value}"
            for name, value in run.items()
            if name not in (*_NOT_SETTINGS, "benchmark", "quick")
        ]
        groups.setdefault(" ".join([run["benchmark"], *settings]), []).append(run)
    return groups


def _compare(run: str, old: Sequence[Run], new: Sequence[Run]) -> list[Change]:
    before, now = _rows(old), _rows(new)
    noise = max(map(_noise, (*before.items(), *now.items())), default=0.0)
    same_machine = len({tuple(r[name] for name in MACHINE) for r in (*old, *new)}) == 1
    baselines = {name.removesuffix(_AGAIN) for name in before if name.endswith(_AGAIN)}
    changes = []
    for row in dict.fromkeys([*before, *now]):
        if row.endswith(_AGAIN):
            continue
        if row not in before or row not in now:
            where = "OLD" if row in before else "NEW"
            changes.append(Change(run=run, row=row, verdict=f"only in {where}"))
        elif not all("ratio" in r for r in (*before[row], *now[row])):
            changes.append(Change(run=run, row=row, verdict="not timed"))
        elif row not in baselines:
            parts = (_ratios(before[row]), _ratios(now[row]))
            changes.append(_change(run, row, *parts, noise, seconds=False))
        elif same_machine:
            parts = (_times(before[row]), _times(now[row]))
            changes.append(_change(run, row, *parts, noise, seconds=True))
        else:
            changes.append(Change(run=run, row=row, verdict="on other machines"))
    return changes


def _change(
    run: str,
    row: str,
    old: tuple[float, float, float],
    new: tuple[float, float, float],
    noise: float,
    *,
    seconds: bool,
) -> Change:
    verdict = "same"
    if new[0] > old[2] and new[1] / old[1] > 1 + noise:
        verdict = "slower"
    elif new[2] < old[0] and old[1] / new[1] > 1 + noise:
        verdict = "faster"
    return Change(
        run=run,
        row=row,
        verdict=verdict,
        old=old,
        new=new,
        noise=noise,
        seconds=seconds,
    )


def _rows(runs: Sequence[Run]) -> dict[str, list[Mapping[str, Any]]]:
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for row in run["rows"]:
            rows.setdefault(row["name"], []).append(row)
    return rows


def _noise(item: tuple[str, list[Mapping[str, Any]]]) -> float:
    """Return the noise floor that the rows of one name show."""
    name, rows = item
    if not name.endswith(_AGAIN):
        return 0.0
    ends = [end for row in rows for end in (row["ratio"][0], row["ratio"][2])]
    return max(max(end, 1 / end) - 1 for end in ends)


def _ratios(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Return the envelope of the quartiles, and the mean of the medians."""
    return _envelope([row["ratio"] for row in rows])


def _times(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    return _envelope([(row["minimum"], row["median"], row["p90"]) for row in rows])


def _envelope(parts: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    lows, middles, highs = zip(*parts, strict=True)
    return min(lows), sum(middles) / len(middles), max(highs)


def _shown(interval: tuple[float, float, float]) -> str:
    low, middle, high = interval
    return f"{middle:.4g} [{low:.4g}, {high:.4g}]"
