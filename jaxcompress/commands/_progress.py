# SPDX-License-Identifier: Apache-2.0
"""A line that says how far a command is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Short work needs no line; and a line is read no more often than that.
_SECONDS = 0.5


@contextmanager
def progress(verb: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function of ``(done, total)`` bytes that shows both on the terminal.

    None if the standard error is not a terminal. The line is gone in the end.

    Args:
      verb: what is being done, such as ``"verifying"``.
    """
    if not sys.stderr.isatty():
        yield None
        return
    start = shown = time.monotonic()
    width = 0

    def show(done: int, total: int) -> None:
        nonlocal shown, width
        now = time.monotonic()
        if now - shown < _SECONDS:
            return
        shown = now
        rate = done / (now - start) / 1e6
        share = 100 * done / max(total, 1)
        line = f"{verb}: {share:.0f} % of {total / 1e6:,.1f} MB, {rate:,.0f} MB/s"
        sys.stderr.write("\r" + line.ljust(width))
        sys.stderr.flush()
        width = max(width, len(line))

    try:
        yield show
    finally:
        if width:
            sys.stderr.write("\r" + " " * width + "\r")
            sys.stderr.flush()
