# SPDX-License-Identifier: Apache-2.0
"""What importing the library costs, against what its users import anyway.

Every call is a fresh interpreter that finds its bytecode compiled, as a user's does from
the second time on. The ratio to "jax, flax, optax" is what a script pays
that uses only jaxcompress; the row with all four is what one pays that adds it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import _harness

_ROOT = Path(__file__).parent.parent


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    settings = _harness.parse(_harness.parser("import_time", __doc__, rounds=30), argv)
    with tempfile.TemporaryDirectory() as cache:
        _measure(settings, {**os.environ, "PYTHONPYCACHEPREFIX": cache})


def _measure(settings: argparse.Namespace, environment: dict[str, str]) -> None:
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    names = ["jax, flax, optax", "jaxcompress"]
    if not settings.quick:
        names += ["jax, flax, optax, jaxcompress", "jax, optax", "jax"]
    rows = _harness.measure(
        {name: _import(name, environment) for name in names},
        rounds=settings.rounds,
        aims={name: "<= 1.1" for name in names if "jaxcompress" in name},
    )
    _harness.show(rows, settings)


def _import(names: str, environment: dict[str, str]) -> _harness.Variant:
    command = [sys.executable, "-c", f"import {names}"]

    def run() -> int:
        done = subprocess.run(command, cwd=_ROOT, env=environment, check=True)
        return done.returncode

    return run


if __name__ == "__main__":
    main()
