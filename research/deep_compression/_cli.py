# SPDX-License-Identifier: Apache-2.0
"""The command line of the study."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._config import DEFAULTS, Config

_EPILOG = """\
digits ships with the project and takes under a minute; fashion_mnist about seven minutes
on two CPU cores. A run stopped by Ctrl-C, or by anything else, goes on with --resume.
"""


def main(argv: list[str] | None = None) -> int:
    """Parse arguments, run, and print the table; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        config = _config(args)
    except ValueError as error:
        print(f"deep_compression: {error}", file=sys.stderr)
        return 2
    try:
        from ._study import study
    except ImportError as error:
        print(
            f"deep_compression: {error}. Install what the studies need:\n"
            '  pip install -e ".[research]"',
            file=sys.stderr,
        )
        return 1
    return study(
        config,
        out=args.out,
        resume=args.resume,
        data_dir=args.data_dir,
        download=not args.no_download,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.deep_compression",
        description="Train a network, prune, quantize and distill it, write it to one "
        "small file, and evaluate what the file holds.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("--data", choices=list(DEFAULTS), default="digits", help="data set (digits)")
    add("--data-dir", type=Path, metavar="DIR", help="folder with the data's files")
    add("--no-download", action="store_true", help="never use the network")
    add("--model", choices=["lenet_300_100", "conv", "characters"], help="network")
    add("--seeds", type=int, metavar="N", help="how many runs, for the spread (3)")
    add("--sparsity", type=float, metavar="S", help="fraction of pruned weights")
    codes = parser.add_mutually_exclusive_group()
    codes.add_argument("--bits", type=int, metavar="B", help="bits a weight (4)")
    codes.add_argument(
        "--clusters", type=int, metavar="K", help="share K values instead of quantizing"
    )
    add("--temperature", type=float, metavar="T", help="of distillation (1)")
    add("--distill", type=float, metavar="W", help="weight of distillation (0.9)")
    add("--dense-epochs", type=int, metavar="N", help="training of the dense network")
    add("--epochs", type=int, metavar="N", help="training of each compressed one")
    add("--batch-size", type=int, metavar="N", help="examples a step")
    add("--learning-rate", type=float, metavar="R", help="of Adam (0.001)")
    add(
        "--out", type=Path, metavar="DIR", help="results (results/deep_compression/...)"
    )
    add("--resume", action="store_true", help="go on with the run in --out")
    return parser


def _config(args: argparse.Namespace) -> Config:
    """The defaults of the data set, and what was asked for."""
    given = {
        name: value
        for name, value in vars(args).items()
        if value is not None and name in Config.__dataclass_fields__
    }
    config = Config(**{**DEFAULTS[args.data], **given})
    text = config.model == "characters"
    if text != (args.data == "shakespeare"):
        raise ValueError(f"--model {config.model} does not fit --data {args.data}.")
    for name in ("seeds", "dense_epochs", "epochs", "batch_size"):
        if getattr(config, name) < 1:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} {getattr(config, name)}: at least 1 is needed.")
    if not 0 <= config.distill <= 1:
        raise ValueError(f"--distill {config.distill} is outside [0, 1].")
    if config.temperature <= 0 or config.learning_rate <= 0:
        raise ValueError("--temperature and --learning-rate are positive.")
    return config
