# SPDX-License-Identifier: Apache-2.0
"""Results on disk: one file of JSON for each benchmark with its options.

A file is named for its benchmark, for the options that differ from the defaults, and for
the platform unless that is the CPU: ``runtimes-network-encoder.json``. Paths and numbers
of repetitions are not part of the name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
_REPETITIONS = ("--rounds", "--kills")
MACHINE = ("device", "machine", "cpu_count")

Run = Mapping[str, Any]
"""What one run says of itself: settings, device, versions, commit and rows."""


def options(settings: argparse.Namespace, defaults: argparse.Namespace) -> list[str]:
    """Return the options that differ from their defaults, paths left out."""
    made = []
    for name, value in vars(settings).items():
        if value == vars(defaults)[name] or isinstance(value, Path):
            continue
        made.append(f"--{name.replace('_', '-')}")
        if value is not True:
            made += map(str, value if isinstance(value, list) else [value])
    return made


def path(benchmark: str, options: Sequence[str], platform: str, folder: Path) -> Path:
    """Return where the results of a benchmark with these options are kept."""
    for name in _REPETITIONS:
        if name in options:
            at = options.index(name)
            options = [*options[:at], *options[at + 2 :]]
    words = [option.removeprefix("--") for option in options]
    words += [platform] * (platform != "cpu")
    return folder / ("-".join([benchmark, *words]) + ".json")


def write(path: Path, run: Run) -> None:
    """Write a run, with a line for each row."""
    head = json.dumps({k: v for k, v in run.items() if k != "rows"}, indent=1)
    rows = ",\n  ".join(json.dumps(row) for row in run["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'
    path.write_text(text, encoding="utf-8")


def read(path: Path) -> list[Run]:
    """Return the runs in a file: results, or what benchmarks printed, tables skipped.

    Raises:
      OSError: if the file cannot be read.
      ValueError: naming the line, if it is damaged, or if there is no run in it.
    """
    text = path.read_text(encoding="utf-8")
    lines = [(n, x) for n, x in enumerate(text.splitlines(), 1) if x[:1] == "{"]
    if lines and lines[0] == (1, "{"):
        lines = [(1, text)]
    if not lines:
        raise ValueError(
            f"{str(path)!r} holds no line of JSON. Save what a benchmark prints: python -m "
            f"benchmarks NAME > {path.name}."
        )
    return [_parsed(line, f"{str(path)!r}, line {number}") for number, line in lines]


def _parsed(text: str, where: str) -> Run:
    try:
        run = json.loads(text)
        if not {"benchmark", "rows", *MACHINE} <= run.keys():
            raise ValueError("it is no line of a benchmark")
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from error
    if run.get("quick"):
        raise ValueError(
            f"{where}: numbers of --quick mean nothing. Run python -m benchmarks "
            f"{run['benchmark']} without it."
        )
    return run
