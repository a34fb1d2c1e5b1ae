# SPDX-License-Identifier: Apache-2.0
"""How fast files are written and read, and how small they are, against NumPy's.

Then how large an update is, and how fast it is made and applied, against writing the new
file. The old one is pruned by 90 %, in 4 bits, with a float32 head of 10 outputs.

Every format stores the same arrays: codes and scales, for a quantized tree. Rates are
per megabyte of the dense float32 weights, in processor time: waiting for the disk does not
count. Ours are also checksummed, and synced to disk before they take their name.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcompress as jc
from jaxcompress import pack, report

from . import _harness

_LEAVES = 4


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("artifact", __doc__, rounds=10)
    made.add_argument(
        "--width", type=int, default=1000, help="of each of 4 square matrices (1000)"
    )
    settings = _harness.parse(made, argv)
    if settings.width < 1:
        made.error(f"--width {settings.width}: a matrix has 1 row or more.")
    if settings.quick:
        settings.width = 32
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, tree in _trees(settings.width).items():
            rows += _measure(name, tree, Path(folder), settings)
        rows += _updates(Path(folder), settings)
    _harness.show(rows, settings)


def _trees(width: int) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), _LEAVES)
    dense = {
        f"Dense_{i}": {"kernel": jax.random.normal(key, (width, width))}
        for i, key in enumerate(keys)
    }

    def small(*compressors: jc.Compressor) -> Any:
        return jc.compress(jc.chain(*compressors), dense)

    four_bits = jc.weight_quantization(bits=4)
    return {
        "float32": dense,
        "int8": small(jc.weight_quantization(bits=8)),
        "90 % pruned, 4 bits": small(jc.magnitude_pruning(0.9), four_bits),
        "97 % pruned, 4 bits": small(jc.magnitude_pruning(0.97), four_bits),
    }


def _measure(name: str, tree: Any, folder: Path, settings: Any) -> list[_harness.Row]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    weights = _LEAVES * settings.width**2
    paths = {
        "numpy.savez": folder / "plain.npz",
        "numpy.savez_compressed": folder / "deflated.npz",
        "jaxcompress": folder / "packed.safetensors",
    }
    plain, deflated, packed = paths.values()
    write = {
        "numpy.savez": lambda: np.savez(plain, *leaves),
        "numpy.savez_compressed": lambda: np.savez_compressed(deflated, *leaves),
        "jaxcompress": lambda: pack.save(packed, tree),
    }
    read = {
        "numpy.savez": lambda: _read(plain),
        "numpy.savez_compressed": lambda: _read(deflated),
        "jaxcompress": lambda: pack.load(packed),
    }

    def rows(verb: str, variants: dict[str, Callable[[], Any]]) -> list[_harness.Row]:
        measured = _harness.measure(
            variants, rounds=settings.rounds, clock=time.process_time
        )
        return [finish(verb, row) for row in measured]

    def finish(verb: str, row: _harness.Row) -> _harness.Row:
        nbytes = paths[row.name.removesuffix(" (again)")].stat().st_size
        extra = {
            "MB/s": 4e-6 * weights / row.median,
            "bytes": nbytes,
            "bits/weight": 8 * nbytes / weights,
            "bound": 8 * bound / weights,
        }
        return dataclasses.replace(row, name=f"{name}: {verb} {row.name}", extra=extra)

    # Raises unless the file, decoded again, holds this tree bit for bit.
    bound = report.size(tree).bound_bytes
    return rows("write", write) + rows("read", read)


def _updates(folder: Path, settings: Any) -> list[_harness.Row]:
    old, new, delta, made = (folder / name for name in ("old", "new", "delta", "made"))
    draws, width = np.random.default_rng(0), settings.width

    def normal(*shape: int) -> np.ndarray:
        return draws.standard_normal(shape, np.float32)

    body = {f"Dense_{i}": {"kernel": normal(width, width)} for i in range(_LEAVES)}
    tuned = jax.tree.map(lambda w: w + 0.01 * normal(*w.shape), body)
    head = normal(width, 10)
    tuned_head = head + 0.001 * normal(*head.shape)

    def tree(body: Any, head: np.ndarray, sparsity: float = 0.9) -> Any:
        small = jc.chain(jc.magnitude_pruning(sparsity), jc.weight_quantization(bits=4))
        return {"body": jc.compress(small, body), "head": head}

    pack.save(old, tree(body, head))
    rows = []
    for name, updated in {
        "head fine-tuned": tree(body, tuned_head),
        "weights moved by 1 %, quantized again": tree(tuned, head),
        "1 % more pruned": tree(body, head, 0.91),
        "all of that": tree(tuned, tuned_head, 0.91),
    }.items():
        whole = pack.save(new, updated)
        nbytes = pack.diff(old, new, delta)
        variants = {
            "save": lambda updated=updated: pack.save(made, updated),
            "diff": lambda: pack.diff(old, new, delta),
            "patch": lambda: pack.patch(old, delta, made),
        }
        measured = _harness.measure(
            variants, rounds=settings.rounds, clock=time.process_time
        )
        if made.read_bytes() != new.read_bytes():
            raise RuntimeError(f"{name}: the updated file is not the new one.")
        sizes = {"bytes": nbytes, "new file": whole, "share": nbytes / whole}
        for row in measured:
            extra = {} if row.name.startswith("save") else sizes
            rows.append(
                dataclasses.replace(row, name=f"{name}: {row.name}", extra=extra)
            )
    return rows


def _read(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in file.files]


if __name__ == "__main__":
    main()
