# SPDX-License-Identifier: Apache-2.0
"""The command line that the studies share, and a clear word where one fails."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

DATA = ("digits", "fashion_mnist")


class RunError(Exception):
    """What went wrong, in words for the person at the terminal."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for on the command line.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...; None for the default.
      out: an empty folder for the results, which exists.
      quick: a trial of a few steps, to see that it all runs.
      data_dir: folder with the data's files.
      download: whether the network may be used.
      choose: choose settings on the validation split instead of running the study.
    """

    data: str
    seeds: int | None
    out: Path
    quick: bool
    data_dir: Path | None
    download: bool
    choose: bool


def main(
    name: str,
    about: str,
    study: Callable[[Options], None],
    argv: Sequence[str] | None,
    *,
    data: Sequence[str] = DATA,
    chooses: bool = False,
) -> int:
    """Parse arguments and run a study; returns the exit status.

    Args:
      name: of the study's folder.
      about: what it does, for ``--help``.
      study: what runs.
      argv: the arguments; None for those of the process.
      data: names of the data sets it can use, the default first.
      chooses: whether it has settings to choose.
    """
    args = _parser(name, about, data, chooses).parse_args(argv)
    try:
        from ..data import DatasetCorrupted, DatasetNotFound
    except ImportError as error:
        return _failed(f'{name}: {error}. Install: pip install -e ".[research]"', 1)
    if args.seeds is not None and args.seeds < 1:
        return _failed(f"{name}: --seeds {args.seeds}: at least 1 is needed.", 2)
    try:
        study(
            Options(
                data=args.data,
                seeds=args.seeds,
                out=_folder(name, args.data, args.out),
                quick=args.quick,
                data_dir=args.data_dir,
                download=not args.no_download,
                choose=getattr(args, "choose", False),
            )
        )
    except (RunError, DatasetNotFound, DatasetCorrupted, ImportError, OSError) as error:
        return _failed(f"{name}: {error}", 1)
    except KeyboardInterrupt:
        return _failed(f"\n{name}: stopped; a study of minutes starts over.", 130)
    return 0


def _parser(
    name: str, about: str, data: Sequence[str], chooses: bool
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m research.{name}", description=about
    )
    add = parser.add_argument
    add("--data", choices=data, default=data[0], help=f"data set ({data[0]})")
    add("--data-dir", type=Path, metavar="DIR", help="folder with the data's files")
    add("--no-download", action="store_true", help="never use the network")
    add("--seeds", type=int, metavar="N", help="how many runs, for the spread (3)")
    add("--out", type=Path, metavar="DIR", help=f"results (results/{name}/...)")
    add("--quick", action="store_true", help="a few steps only, to see that it runs")
    if chooses:
        add("--choose", action="store_true", help="choose settings on validation data")
    return parser


def _folder(name: str, data: str, asked: Path | None) -> Path:
    """Make the folder of the results: the asked one, or the next that is free."""
    path = asked
    if path is None:
        root, number = Path("results") / name, 1
        path = root / data
        while path.exists():
            number += 1
            path = root / f"{data}-{number}"
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} is not empty. Choose another folder with --out.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _failed(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status
