# SPDX-License-Identifier: Apache-2.0
"""Interleaved rounds, ratios paired within a round, and the noise floor beside them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcompress import report

from . import _results

# Modules of libraries that are measured beside ours.
_PEERS = ("ai_edge_litert", "ai_edge_quantizer", "aqt", "brevitas", "keras")
_PEERS += ("neural_compressor", "onnxruntime", "qwix", "torch", "torch_pruning")
_PEERS += ("torchao",)

Variant = Callable[[], Any]
"""Does the work once and returns its arrays, which the harness waits for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The times of one variant, in seconds per unit of work.

    Attributes:
      name: of the variant.
      first: the first call, with whatever is compiled in it, whole and not per unit.
      minimum: of the rounds.
      median: of the rounds.
      p90: nine in ten rounds took no longer.
      ratio: lower quartile, median and upper quartile over the rounds of this variant's
        time divided by the baseline's in the same round.
      aim: what the ratio should be, in words; None where there is none.
      extra: further columns.
    """

    name: str
    first: float
    minimum: float
    median: float
    p90: float
    ratio: tuple[float, float, float]
    aim: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def measure(
    variants: Mapping[str, Variant],
    *,
    rounds: int,
    units: int = 1,
    warm_up: bool = True,
    control: Variant | None = None,
    aims: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Time every variant once a round, each round in a new random order.

    Neighbors on the machine slow a whole round more than one variant of it, so ratios
    are taken within rounds. The baseline runs twice a round; the ratio of its second
    entry to its first is the noise floor: what differs by no more is the same.

    Args:
      variants: by name; the first is the baseline.
      rounds: how many to time, after a first call that compiles.
      units: of work in one call, such as steps; times are divided by it.
      warm_up: whether there is one more call before the rounds; there is no need where
        every call starts from nothing.
      control: the second entry of the baseline; None: the same callable.
      aims: what the ratios should be, by name.
      clock: seconds; under ``one_core``, ``time.process_time``, which counts what this
        process takes of the core and not what its neighbors take.

    Raises:
      ValueError: for fewer than two rounds, or an aim for a name that is no variant.
    """
    if rounds < 2:
        raise ValueError(f"rounds={rounds}: quartiles take 2 or more.")
    baseline, aims = next(iter(variants)), {} if aims is None else aims
    if unknown := aims.keys() - variants.keys():
        raise ValueError(f"aims for {sorted(unknown)}, which are no variants.")
    again = f"{baseline} (again)"
    entries = {
        baseline: variants[baseline],
        again: variants[baseline] if control is None else control,
        **variants,
    }

    def timed(name: str) -> float:
        start = clock()
        jax.block_until_ready(entries[name]())
        return clock() - start

    first = {name: timed(name) for name in entries}
    for name in entries if warm_up else ():
        timed(name)
    order, shuffle = list(entries), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # A collection would be charged to whoever is running.
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                seconds[name].append(timed(name) / units)
    finally:
        if collecting:
            gc.enable()
    return [
        _row(name, first[name], seconds[name], seconds[baseline], aims.get(name))
        for name in entries
    ]


def parser(
    module: str,
    doc: str | None,
    *,
    rounds: int,
    quick: int = 2,
    about_quick: str = "tiny sizes: does it run? no number counts",
) -> argparse.ArgumentParser:
    """The command line that all benchmarks share.

    Args:
      module: name of the benchmark's file, without its ending.
      doc: its docstring, shown by ``--help``.
      rounds: how many to time by default.
      quick: how many with ``--quick``.
      about_quick: what ``--quick`` does.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--rounds", type=int, help=f"default {rounds}; {quick} if quick")
    made.add_argument("--quick", action="store_true", help=about_quick)
    made.add_argument(
        "--output",
        type=Path,
        help="file or folder for the results instead of benchmarks/results; - for none; "
        "quick runs write none by default",
    )
    made.set_defaults(benchmark=module, default_rounds=(rounds, quick))
    return made


def parse(
    made: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse a command line, the number of rounds settled, its command and load noted."""
    settings = made.parse_args(argv)
    options = _results.options(settings, made.parse_args([]))
    default_rounds = vars(settings).pop("default_rounds")
    if settings.rounds is None:
        settings.rounds = default_rounds[settings.quick]
    if settings.rounds < 2:
        made.error(f"--rounds {settings.rounds}: quartiles take 2 or more.")
    settings.options = options
    settings.load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return settings


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and the threads of every runtime, on one core.

    Processor time then says what a call takes, also where others use the core.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def show(rows: Sequence[Row], settings: argparse.Namespace) -> None:
    """Print the rows as a table, and record them."""
    print(table(rows))
    record([dataclasses.asdict(row) for row in rows], settings)


def record(rows: Sequence[Mapping[str, Any]], settings: argparse.Namespace) -> None:
    """Write the results to their file, and print them, last, as one line of JSON."""
    text, path, options = line(rows, settings), settings.output, settings.options
    if path is None and not settings.quick:
        path = _results.FOLDER
    if path is not None and path != Path("-"):
        if path.is_dir() or path == _results.FOLDER:
            platform = jax.default_backend()
            path = _results.path(settings.benchmark, options, platform, path)
        _results.write(path, json.loads(text))
        print(f"written: {path}", file=sys.stderr)
    print(text)


def line(rows: Sequence[Mapping[str, Any]], settings: argparse.Namespace) -> str:
    """Rows, settings and where they come from, as one line of JSON.

    Paths are left out: they say where things lie and not what was measured.
    """
    here = report.provenance(repository=Path(__file__).parent)
    known = {n: v for n, v in vars(settings).items() if not isinstance(v, Path | None)}
    command = ["python", "-m", f"benchmarks.{settings.benchmark}"]
    command += known.pop("options", [])
    content = {
        "benchmark": known.pop("benchmark"),
        **known,
        "command": shlex.join(command),
        "date": datetime.date.today().isoformat(),
        "device": here.device,
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "versions": dict(here.versions) | _peers(),
        "commit": here.commit,
        "rows": list(rows),
    }
    return json.dumps(content)


def _peers() -> dict[str, str]:
    """Return the versions of the peers that were imported."""
    modules = [name for name in _PEERS if name in sys.modules]
    packages = importlib.metadata.packages_distributions() if modules else {}
    return {
        package: importlib.metadata.version(package)
        for module in modules
        for package in sorted(set(packages.get(module, ())))
    }


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned; milliseconds, and ratios with their quartiles."""
    extra = list(dict.fromkeys(name for row in rows for name in row.extra))
    lines = [
        ["", "first", "min", "median", "p90 ms", "ratio [quartiles]", "aim", *extra]
    ]
    for row in rows:
        low, middle, high = row.ratio
        times = (row.first, row.minimum, row.median, row.p90)
        lines.append(
            [row.name]
            + [f"{1e3 * seconds:,.2f}" for seconds in times]
            + [f"{middle:.3f} [{low:.3f}, {high:.3f}]", row.aim or ""]
            + [_text(row.extra.get(name)) for name in extra]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line, widths, strict=True)][1:]
        ).rstrip()
        for line in lines
    )


def _row(
    name: str,
    first: float,
    seconds: Sequence[float],
    baseline: Sequence[float],
    aim: str | None,
) -> Row:
    ratios = [a / b for a, b in zip(seconds, baseline, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Row(
        name=name,
        first=first,
        minimum=min(seconds),
        median=statistics.median(seconds),
        p90=statistics.quantiles(seconds, n=10, method="inclusive")[-1],
        ratio=(low, middle, high),
        aim=aim,
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
