# SPDX-License-Identifier: Apache-2.0
"""Commands of ``python -m jaxcompress``: export, run, bench, inspect and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import _bench, _export, _inspect, _report, _run


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
      argv: arguments; None reads those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jaxcompress",
        description="Export compressed networks, run the files in their runtimes, and show "
        "what they hold and what was measured.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (_export, _run, _bench, _inspect, _report):
        module.add(commands)
    settings = parser.parse_args(argv)
    try:
        settings.run(settings)
    except (OSError, ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


__all__ = ["main"]
