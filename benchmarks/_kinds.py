# SPDX-License-Identifier: Apache-2.0
"""The kinds of files that are damaged: how each is written, read, and said to be bad."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

import jaxcompress as jc
from jaxcompress import pack, teacher_cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of file. To damage another kind, add it to ``KINDS``.

    Attributes:
      add: ``(folder, number)``: write what belongs to a number, greater than all before.
      read: ``folder -> {number: bytes}``: read all that is there, whatever it holds.
      content: ``number -> bytes``: what ``read`` must return for it.
      refuses: the errors that say that something is damaged.
      left_over: pattern of what only an unfinished ``add`` may leave, and the next one
        removes; None if it stays.
      keeps_all: whether ``read`` returns all numbers, not only the newest ones.
    """

    add: Callable[[Path, int], object]
    read: Callable[[Path], dict[int, bytes]]
    content: Callable[[int], bytes]
    refuses: type[Exception]
    left_over: str | None
    keeps_all: bool


def _bits(tree: Any) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


def _state(number: int) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {
        "kernel": draw.normal(size=(40, 30)).astype(np.float32),
        "moment": draw.normal(size=300).astype(ml_dtypes.bfloat16),
        "codes": draw.integers(-8, 8, (20, 20)).astype(np.int8),
        "scale": np.float32(draw.normal()),
        "step": number,
    }


def _read_checkpoints(folder: Path) -> dict[int, bytes]:
    return {
        step: _bits(jc.restore_checkpoint(folder, _state(0), step=step))
        for step in jc.checkpoint_steps(folder)
    }


_CLASSES, _K, _PER_NUMBER = 50, 8, 6
_KEY = teacher_cache.Key(teacher="none", classes=_CLASSES, k=_K)


def _logits(number: int) -> np.ndarray:
    draw = np.random.default_rng(number)
    return draw.normal(size=(_PER_NUMBER, _CLASSES)).astype(np.float32)


def _ids(number: int) -> np.ndarray:
    return number * _PER_NUMBER + np.arange(_PER_NUMBER)


def _add_answers(folder: Path, number: int) -> None:
    with teacher_cache.write(folder, _KEY, shard=_PER_NUMBER) as cache:
        cache.add(_ids(number), jax.numpy.asarray(_logits(number)))


def _read_answers(folder: Path) -> dict[int, bytes]:
    cache = teacher_cache.read(folder, _KEY)
    numbers = range(len(cache) // _PER_NUMBER)
    return {number: _bits(cache(_ids(number))) for number in numbers}


def _answers(number: int) -> bytes:
    return _bits(jc.distill.top_k(jax.numpy.asarray(_logits(number)), _K))


def _artifact(number: int) -> dict[str, Any]:
    weights = {"kernel": _state(number)["kernel"]}
    return {
        "net": jc.compress(jc.weight_quantization(bits=4), weights),
        "number": np.int32(number),
    }


def _read_artifact(folder: Path) -> dict[int, bytes]:
    tree = jc.load(folder / "net.safetensors")
    return {int(tree["number"]): _bits(tree)}


def _add_update(folder: Path, number: int) -> None:
    """Write the delta to the next state; the first state is its base."""
    base, new = folder / "base.safetensors", folder / ".new"
    if not base.exists():
        pack.save(base, _artifact(0))
    pack.save(new, _artifact(number))
    pack.diff(base, new, folder / "update.delta")
    new.unlink()


def _read_update(folder: Path) -> dict[int, bytes]:
    with tempfile.TemporaryDirectory() as elsewhere:
        made = Path(elsewhere) / "net.safetensors"
        pack.patch(folder / "base.safetensors", folder / "update.delta", made)
        tree = jc.load(made)
    return {int(tree["number"]): _bits(tree)}


def _plan(number: int) -> jc.structured.Plan:
    """A plan that keeps the channels of the number's bits, and one more."""
    kept = np.array([True, *((number >> i) & 1 == 1 for i in range(40))])
    masks = {("up/kernel", 1): kept, ("down/kernel", 0): kept}
    shapes = {"up/kernel": (8, 41), "down/kernel": (41, 8), "in": (3, 8)}
    return jc.structured.Plan(masks, shapes, ["in"])


def _read_plan(folder: Path) -> dict[int, bytes]:
    plan = jc.structured.Plan.load(folder / "plan.json")
    bits = plan["up/kernel", 1][1:]
    return {int(sum(1 << i for i in np.flatnonzero(bits))): plan.to_json().encode()}


KINDS = {
    "checkpoint": Kind(
        add=lambda folder, number: jc.save_checkpoint(folder, number, _state(number)),
        read=_read_checkpoints,
        content=lambda number: _bits(_state(number)),
        refuses=jc.CheckpointError,
        left_over="[0-9]*.*",
        keeps_all=False,
    ),
    "teacher cache": Kind(
        add=_add_answers,
        read=_read_answers,
        content=_answers,
        refuses=teacher_cache.CacheError,
        left_over=".*.tmp",
        keeps_all=True,
    ),
    "artifact": Kind(
        add=lambda folder, number: jc.save(
            folder / "net.safetensors", _artifact(number)
        ),
        read=_read_artifact,
        content=lambda number: _bits(_artifact(number)),
        refuses=pack.ArtifactError,
        left_over=None,
        keeps_all=False,
    ),
    "update": Kind(
        add=_add_update,
        read=_read_update,
        content=lambda number: _bits(_artifact(number)),
        refuses=pack.ArtifactError,
        left_over=None,
        keeps_all=False,
    ),
    "plan": Kind(
        add=lambda folder, number: _plan(number).save(folder / "plan.json"),
        read=_read_plan,
        content=lambda number: _plan(number).to_json().encode(),
        refuses=jc.structured.PlanError,
        left_over=None,
        keeps_all=False,
    ),
}
