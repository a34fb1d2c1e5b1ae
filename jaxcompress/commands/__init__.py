# SPDX-License-Identifier: Apache-2.0
"""Commands of ``python -m jaxcompress``: runtimes, reports, and files on disk."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import (
    _bench,
    _diff,
    _export,
    _inspect,
    _patch,
    _report,
    _run,
    _verify,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
      argv: arguments; None reads those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jaxcompress",
        description="Export compressed networks and run the files in their runtimes; "
        "show, compare, update and check files; report what was measured.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    modules = (_export, _run, _bench, _inspect, _report, _diff, _patch, _verify)
    for module in modules:
        module.add(commands)
    settings = parser.parse_args(argv)
    try:
        settings.run(settings)
    except (OSError, ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


__all__ = ["main"]
