# SPDX-License-Identifier: Apache-2.0
"""What becomes of damaged files and killed writers: refused, or the same values.

Every kind of file is damaged many times: one bit flipped, the end cut off, a block of
zeros. Reading it must raise the error of that kind, or return the values bit for bit.
Then writers are killed at random moments. What was reported as written must be there,
everything there must be right, and the next writer must be able to continue. Any other
outcome is a failure, and the command ends with status 1.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import _harness
from ._kinds import KINDS

ROOT = Path(__file__).parents[1]
FAILURES = ("other values", "another error", "lost", "wrong", "cannot continue")
Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, draw: random.Random) -> bytes:
    """Flip one bit."""
    at = draw.randrange(8 * len(content))
    damaged = bytearray(content)
    damaged[at // 8] ^= 1 << at % 8
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    """Cut off the end, as of a write that was not finished."""
    return content[: draw.randrange(len(content))]


def blank(content: bytes, draw: random.Random) -> bytes:
    """Replace a block of up to 512 bytes by zeros, as of a page that was not written."""
    start = draw.randrange(len(content))
    end = min(start + draw.randint(1, 512), len(content))
    return content[:start] + bytes(end - start) + content[end:]


DAMAGES: dict[str, Damage] = {"flip": flip, "cut": cut, "blank": blank}


def damage(name: str, folder: Path, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Damage one file at a time, and count the outcomes of reading by kind of damage.

    Half of the damages choose a file by its size, and half choose any: else metadata
    would seldom be hit.
    """
    kind, draw = KINDS[name], random.Random(seed)
    for number in (0, 1):
        kind.add(folder, number)
    expected = kind.read(folder)
    if not expected or any(kind.content(n) != bits for n, bits in expected.items()):
        raise RuntimeError(f"{name}: what was written is not what is read, undamaged.")
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.stat().st_size]
    sizes = [file.stat().st_size for file in files]
    counts: dict[str, Any] = {}
    for title, change in DAMAGES.items():
        outcomes: collections.Counter[str] = collections.Counter()
        for number in range(rounds):
            weights = sizes if number % 2 else None
            file = draw.choices(files, weights)[0]
            content = file.read_bytes()
            file.write_bytes(change(content, draw))
            outcomes[_read(name, folder, expected)] += 1
            file.write_bytes(content)
        counts[title] = dict(outcomes)
    if kind.read(folder) != expected:
        raise RuntimeError(f"{name}: reading damaged files changed the folder.")
    return counts


def kill(name: str, folder: Path, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill writers in one folder, one after another, and count the states they leave."""
    kind, draw = KINDS[name], random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    start = 0
    for _ in range(kills):
        reported = _run_until_killed(name, folder, start, draw)
        try:
            stored = kind.read(folder)
            needed = range(reported + 1) if kind.keeps_all else [reported]
            is_there = set(needed) <= stored.keys() or (
                not kind.keeps_all and max(stored) >= reported
            )
            is_right = all(kind.content(n) == bits for n, bits in stored.items())
            outcomes["whole" if is_there and is_right else "lost"] += 1
            if is_there and not is_right:
                outcomes["wrong"] += 1
            unfinished = _left_over(name, folder)
            start = max(stored) + 1
            kind.add(folder, start)
        except kind.refuses:
            outcomes["cannot continue"] += 1
            return dict(outcomes)
        if unfinished:
            outcomes["left something unfinished"] += 1
        if _left_over(name, folder) or kind.read(folder).get(start) is None:
            outcomes["cannot continue"] += 1
        start += 1
    return dict(outcomes)


def write_until_killed(name: str, folder: str, start: int) -> None:
    """Write one number after another, and report each on a line of its own."""
    for number in range(start, start + 1_000_000):
        KINDS[name].add(Path(folder), number)
        print(number, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("damage", __doc__, rounds=500)
    made.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    made.add_argument("--kills", type=int, help="writers to kill (20; 2 if quick)")
    made.add_argument("--seed", type=int, default=0)
    settings = _harness.parse(made, argv)
    if settings.kills is None:
        settings.kills = 2 if settings.quick else 20
    rows = []
    for name in settings.kinds:
        with tempfile.TemporaryDirectory() as folder:
            counts = damage(name, Path(folder), settings.rounds, settings.seed)
        with tempfile.TemporaryDirectory() as folder:
            counts["kill"] = kill(name, Path(folder), settings.kills, settings.seed)
        for title, outcomes in counts.items():
            print(f"{name:14} {title:6}", json.dumps(outcomes))
            rows.append({"name": f"{name}: {title}", "outcomes": outcomes})
    _harness.record(rows, settings)
    if any(row["outcomes"].get(failure) for row in rows for failure in FAILURES):
        raise SystemExit(1)


def _read(name: str, folder: Path, expected: dict[int, bytes]) -> str:
    kind = KINDS[name]
    try:
        return "same values" if kind.read(folder) == expected else "other values"
    except kind.refuses:
        return "refused"
    except Exception as error:  # counted as a failure
        print(f"{name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return "another error"


def _left_over(name: str, folder: Path) -> list[Path]:
    pattern = KINDS[name].left_over
    return [] if pattern is None else list(folder.glob(pattern))


def _run_until_killed(name: str, folder: Path, start: int, draw: random.Random) -> int:
    """Start a writer, kill it at a random moment, and return the last number reported."""
    code = "import sys; from benchmarks import damage as d; d.write_until_killed("
    code += "sys.argv[1], sys.argv[2], int(sys.argv[3]))"
    child = subprocess.Popen(
        [sys.executable, "-c", code, name, str(folder), str(start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},  # no virtual devices: they start slowly
    )
    with child:
        assert child.stdout is not None
        if not (first := child.stdout.readline()):
            raise RuntimeError(f"{name}: the writer ended before its first number.")
        begun = time.perf_counter()
        second = child.stdout.readline()
        # Within one of the next two writes.
        time.sleep(2 * draw.random() * (time.perf_counter() - begun))
        child.send_signal(signal.SIGKILL)
        lines = [first, second, *child.stdout.read().splitlines()]
    return int([line for line in lines if line.strip()][-1])


if __name__ == "__main__":
    main()
