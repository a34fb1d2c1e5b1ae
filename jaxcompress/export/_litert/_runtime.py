# SPDX-License-Identifier: Apache-2.0
"""Run .tflite files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._backend import Session
from .._versions import require

ONE_BATCH = "one_batch"  # signature of a file whose rows depend on each other
RUNTIME = ("ai-edge-litert", "2.3", "litert")


def _interpreter(content: bytes, threads: int | None, **options: Any) -> Any:
    require(*RUNTIME)
    from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
        Interpreter,
    )

    try:
        interpreter = Interpreter(
            model_content=bytes(content), num_threads=threads, **options
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"LiteRT cannot load the file: {error}. Is it damaged, or not a .tflite file?"
        ) from error
    return interpreter


def load(content: bytes, threads: int | None = None) -> Session:
    """Return a function that runs the model, batch by batch of the file's size."""
    interpreter = _interpreter(content, threads)
    (signature,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(signature)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    names, results = _ordered(inputs), _ordered(outputs)
    shapes = [tuple(int(n) for n in inputs[name]["shape"]) for name in names]
    dtypes = [np.dtype(inputs[name]["dtype"]) for name in names]

    def once(arrays: list[np.ndarray]) -> list[np.ndarray]:
        outs = runner(**dict(zip(names, arrays, strict=True)))
        return [outs[name] for name in results]

    def run(*arrays: Any) -> list[np.ndarray]:
        values = [np.asarray(x) for x in arrays]
        if len(values) != len(names):
            raise ValueError(
                f"the file has {len(names)} inputs, got {len(values)} arrays."
            )
        alone = signature != ONE_BATCH
        return _in_batches(once, values, shapes, dtypes, alone)

    return run


def _ordered(names: Iterable[str]) -> list[str]:
    """Return numbered names in the order of their numbers."""
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _in_batches(
    once: Any,
    values: list[np.ndarray],
    shapes: list[Any],
    dtypes: list[Any],
    alone: bool,
) -> list[np.ndarray]:
    """Run all rows with a model of a fixed batch; the last batch is filled up."""
    for value, shape, dtype in zip(values, shapes, dtypes, strict=True):
        if (value.ndim, value.dtype, value.shape[1:]) != (len(shape), dtype, shape[1:]):
            raise ValueError(
                f"the file takes arrays of {np.dtype(dtype)} {list(shape)} (any number of "
                f"rows), got {value.dtype} {list(value.shape)}."
            )
    if all(v.shape == s for v, s in zip(values, shapes, strict=True)):
        return [np.array(x) for x in once(values)]
    sizes = {(s[0], len(v)) for v, s in zip(values, shapes, strict=True) if s}
    if len(sizes) != 1:
        raise ValueError(
            "all inputs must have the same number of rows, got "
            f"{[v.shape for v in values]}, where the file takes {shapes} at a time."
        )
    ((size, rows),) = sizes
    if not alone:
        raise ValueError(
            f"the file takes {size} rows, got {rows}: a row of its results depends on the "
            "other rows, so more cannot be run batch by batch."
        )
    batches = []
    for start in range(0, max(rows, 1), size):
        count = min(size, rows - start)
        part = [
            _filled(v[start : start + count], size) if v.ndim else v for v in values
        ]
        batches.append([x[:count].copy() for x in once(part)])
    return [np.concatenate(column) for column in zip(*batches, strict=True)]


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Return as many rows as a file takes."""
    missing = size - len(rows)
    if not missing:
        return rows
    last = rows[-1:] if len(rows) else np.zeros((1, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(last, missing, 0)])


def operators(content: bytes) -> dict[str, int]:
    """Count the operators of a file, each with the dtype of its result."""
    require(*RUNTIME)
    from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
        OpResolverType,
    )

    plain = _interpreter(
        content,
        None,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    dtypes = {d["index"]: np.dtype(d["dtype"]).name for d in plain.get_tensor_details()}
    counted = Counter(
        f"{op['op_name']} {dtypes[op['outputs'][0]]}" for op in plain._get_ops_details()
    )
    return dict(counted)
