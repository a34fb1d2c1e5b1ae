# SPDX-License-Identifier: Apache-2.0
"""List the benchmarks, run one, or compare what two runs measured.

    python -m benchmarks                          lists the benchmarks
    python -m benchmarks threshold --quick        runs one, with its options
    python -m benchmarks compare OLD NEW          what became slower beyond the noise

OLD and NEW are files with the output of benchmarks: one JSON line each, of as many runs as
you like.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from . import _regressions

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
