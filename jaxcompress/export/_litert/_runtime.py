# SPDX-License-Identifier: Apache-2.0
"""Run .tflite files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._backend import Session
from .._versions import require

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
    runner = interpreter.get_signature_runner("serving_default")
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
        return _in_batches(once, values, shapes, dtypes)

    return run


def _ordered(names: Iterable[str]) -> list[str]:
    """Return numbered names in the order of their numbers."""
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _in_batches(
    once: Any, values: list[np.ndarray], shapes: list[Any], dtypes: list[Any]
) -> list[np.ndarray]:
    """Run all rows with a model of a fixed batch; the last batch is filled up."""
    for value, shape, dtype in zip(values, shapes, dtypes, strict=True):
        if (
            value.shape[1:] != shape[1:]
            or value.ndim != len(shape)
            or value.dtype != dtype
        ):
            raise ValueError(
                f"the file takes arrays of {np.dtype(dtype)} {list(shape)} (any number of "
                f"rows), got {value.dtype} {list(value.shape)}."
            )
    if all(v.shape == s for v, s in zip(values, shapes, strict=True)):
        return [np.array(x) for x in once(values)]
    size, rows = shapes[0][0], len(values[0])
    if any(len(v) != rows or s[0] != size for v, s in zip(values, shapes, strict=True)):
        raise ValueError(
            f"all inputs must have the same number of rows, got "
            f"{[len(v) for v in values]}, where the file takes {[s[0] for s in shapes]} "
            "at a time."
        )
    batches = []
    for start in range(0, rows, size):
        part = [v[start : start + size] for v in values]
        missing = size - len(part[0])
        if missing:
            part = [np.concatenate([v, np.repeat(v[-1:], missing, 0)]) for v in part]
        batches.append([x[: size - missing].copy() for x in once(part)])
    return [np.concatenate(column) for column in zip(*batches, strict=True)]


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
