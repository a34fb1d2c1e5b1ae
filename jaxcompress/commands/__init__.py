# SPDX-License-Identifier: Apache-2.0
"""Commands of ``python -m jaxcompress``: export, run and bench."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import _bench, _export, _run


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
      argv: arguments; None reads those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jaxcompress",
        description="Export compressed networks, and run the files in their runtimes.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (_export, _run, _bench):
        module.add(commands)
    settings = parser.parse_args(argv)
    try:
        settings.run(settings)
    except (OSError, ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


__all__ = ["main"]
