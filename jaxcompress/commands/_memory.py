# SPDX-License-Identifier: Apache-2.0
"""How much memory a file takes in its runtime: run by ``bench --memory`` in a process.

python -m jaxcompress.commands._memory FILE INPUT...
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import export
from ._arrays import read


def megabytes(file: Path, inputs: Sequence[Path]) -> float:
    """Return the memory that loading and running a file adds to a fresh process, in MB.

    Raises:
      ValueError: if the process fails; its last line is the reason.
    """
    command = [sys.executable, "-m", __name__, str(file), *map(str, inputs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise ValueError(f"the memory of {str(file)!r} could not be measured: {reason}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the growth of the resident memory at its largest, in MB."""
    file, inputs = Path(sys.argv[1]), read([Path(x) for x in sys.argv[2:]])
    before = _status("VmRSS")
    export.load(file, threads=1)(*inputs)
    print((_status("VmHWM") - before) / 1e3)


def _status(name: str) -> int:
    """Return a size of this process in kB, which only Linux tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise ValueError("memory is measured on Linux only")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0])


if __name__ == "__main__":
    main()
