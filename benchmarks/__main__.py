# SPDX-License-Identifier: Apache-2.0
"""List the benchmarks, run one, compare what two runs measured, or write the tables.

    python -m benchmarks                          lists the benchmarks
    python -m benchmarks threshold --quick        runs one, with its options
    python -m benchmarks compare OLD NEW          what became slower beyond the noise
    python -m benchmarks tables                   writes the tables of the documents anew
    python -m benchmarks tables --check           says which of them are stale

A run without --quick writes its results to benchmarks/results. OLD and NEW are such files,
or the output of benchmarks, of as many runs as you like.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from . import _documents, _regressions

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(path.stem for path in _FOLDER.glob("[!_]*.py"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    match arguments:
        case [] | ["-h" | "--help"]:
            print(f"{__doc__}\n{_listed()}")
            return 0
        case ["compare", *options]:
            return _regressions.main(options)
        case ["tables", *options]:
            return _documents.main(options)
        case [name, *options] if name in names():
            status = importlib.import_module(f"benchmarks.{name}").main(options)
            return int(status or 0)
    print(
        f"error: {arguments[0]!r} is no benchmark; they are:\n{_listed()}",
        file=sys.stderr,
    )
    return 2


def _listed() -> str:
    width = max(map(len, names()))
    return "\n".join(f"  {name:<{width}}  {_about(name)}" for name in names())


def _about(name: str) -> str:
    """Return the first line of a benchmark's docstring, without importing it."""
    tree = ast.parse((_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
