# SPDX-License-Identifier: Apache-2.0
"""The command line that all studies share, and what it says when one fails."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._errors import RunError, UsageError
from ._folder import SETTINGS, default_folder

DATA = ("digits", "fashion_mnist")


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for on the command line.

    Attributes:
      study: name of the study's folder.
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...; None for the default.
      out: folder for the results; it need not exist.
      resume: continue the run that is recorded there.
      quick: a trial of a few steps, to see that it all runs.
      data_dir: folder with the data's files.
      download: whether the network may be used.
      choose: choose settings on the validation split instead of running the study.
      settings: the options that only this study has, as far as they were given.
    """

    study: str
    data: str
    seeds: int | None
    out: Path
    resume: bool
    quick: bool
    data_dir: Path | None
    download: bool
    choose: bool
    settings: Mapping[str, Any]


def main(
    name: str,
    about: str,
    study: Callable[[Options], None],
    argv: Sequence[str] | None,
    *,
    data: Sequence[str] = DATA,
    chooses: bool = False,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Parse arguments and run a study; returns the exit status.

    Args:
      name: of the study's folder.
      about: what it does, for ``--help``.
      study: what runs.
      argv: the arguments; None for those of the process.
      data: names of the data sets it can use, the default first.
      chooses: whether it has settings to choose.
      add_options: adds options of its own to the parser.
    """
    parser, shared = _parser(name, about, data, chooses)
    if add_options is not None:
        add_options(parser)
    args = parser.parse_args(argv)
    try:
        from ..data import DatasetCorrupted, DatasetNotFound
    except ImportError as error:
        return _failed(f'{name}: {error}. Install: pip install -e ".[research]"', 1)
    out = args.out or default_folder(name, args.data, resume=args.resume)
    try:
        if args.seeds is not None and args.seeds < 1:
            raise UsageError(f"--seeds {args.seeds}: at least 1 is needed.")
        study(
            Options(
                study=name,
                data=args.data,
                seeds=args.seeds,
                out=out,
                resume=args.resume,
                quick=args.quick,
                data_dir=args.data_dir,
                download=not args.no_download,
                choose=getattr(args, "choose", False),
                settings=_own_options(args, shared),
            )
        )
    except UsageError as error:
        return _failed(f"{name}: {error}", 2)
    except (RunError, DatasetNotFound, DatasetCorrupted, ImportError, OSError) as error:
        return _failed(f"{name}: {error}", 1)
    except KeyboardInterrupt:
        return _failed(f"\n{name}: {_stopped(out)}", 130)
    return 0


def _parser(
    name: str, about: str, data: Sequence[str], chooses: bool
) -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser with the shared options, and what they are called."""
    parser = argparse.ArgumentParser(
        prog=f"python -m research.{name}",
        description=about,
        epilog="A run that was stopped, by Ctrl-C or by anything else, continues with "
        "--resume.",
    )
    add = parser.add_argument
    add("--data", choices=data, default=data[0], help=f"data set ({data[0]})")
    add("--data-dir", type=Path, metavar="DIR", help="folder with the data's files")
    add("--no-download", action="store_true", help="never use the network")
    add("--seeds", type=int, metavar="N", help="how many runs, for the spread (3)")
    add("--out", type=Path, metavar="DIR", help=f"results (results/{name}/...)")
    add("--resume", action="store_true", help="continue the run in --out")
    add("--quick", action="store_true", help="a few steps only, to see that it runs")
    if chooses:
        add("--choose", action="store_true", help="choose settings on validation data")
    return parser, set(vars(parser.parse_args([])))


def _own_options(args: argparse.Namespace, shared: set[str]) -> dict[str, Any]:
    present = {name: value for name, value in vars(args).items() if value is not None}
    return {name: value for name, value in present.items() if name not in shared}


def _stopped(out: Path) -> str:
    if not (out / SETTINGS).exists():
        return "stopped before anything was recorded."
    return (
        f"stopped. What is finished is in {out}; the same command with these options "
        f"continues from there:\n  --out {out} --resume"
    )


def _failed(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status
