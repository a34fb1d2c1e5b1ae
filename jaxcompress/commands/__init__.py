# SPDX-License-Identifier: Apache-2.0
"""Commands of ``python -m jaxcompress``: files for runtimes, and files on disk."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import _bench, _diff, _export, _patch, _run, _verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
      argv: arguments; None reads those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jaxcompress",
        description="Export compressed networks and run the files in their runtimes; "
        "compare, update and check packed files.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (_export, _run, _bench, _diff, _patch, _verify):
        module.add(commands)
    settings = parser.parse_args(argv)
    try:
        settings.run(settings)
    except (OSError, ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


__all__ = ["main"]
