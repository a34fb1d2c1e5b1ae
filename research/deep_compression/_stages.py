# SPDX-License-Identifier: Apache-2.0
"""The stages of the study: each a compressor, perhaps taught."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

import jaxcompress as jc

from ._config import Config


@dataclasses.dataclass(frozen=True)
class Stage:
    """One row of the table that is trained.

    Attributes:
      name: of the row.
      compressor: what the network is trained under.
      epochs: of training.
      from_dense: whether it starts from the dense network (else from scratch).
      distilled: whether the dense network's logits are part of its loss.
      transforms: what is done, in words.
      curve: the curve of the picture that it is a point of; None if of none.
    """

    name: str
    compressor: jc.Compressor
    epochs: int
    from_dense: bool = True
    distilled: bool = False
    transforms: tuple[str, ...] = ()
    curve: str | None = None


BY_HAND, BY_RATE = "pruned and quantized by hand", "by rate"
# Around the settings of the run: what 20 to 400 times smaller takes.
_SPARSITIES_AND_BITS = ((0.8, 4), (0.95, 4), (0.97, 3), (0.98, 3))
_MULTIPLIERS = (0.05, 0.1, 0.4, 1.0)


def stages(config: Config, steps_per_epoch: int) -> list[Stage]:
    """Dense; pruned, quantized as well, distilled as well; and by rate, distilled.

    All compressed ones start from the same dense network and train for the same number
    of steps, so that a row differs from the one above by one technique.
    """
    steps = config.epochs * steps_per_epoch
    prune, quantize = compressors(config, steps)
    both = jc.chain(prune, quantize)
    words = (
        f"magnitude pruning, ERK, cubic ramp to {config.sparsity:g}",
        f"{config.bits}-bit weights, one scale a matrix, 8-bit biases"
        if config.clusters is None
        else f"{config.clusters} shared values a matrix, 8-bit biases",
        f"distilled from {_teachers(config.teachers)}, T={config.temperature:g}",
    )

    def stage(name: str, c: jc.Compressor, done: int) -> Stage:
        curve = BY_HAND if done == 3 else None
        return Stage(
            name,
            c,
            config.epochs,
            True,
            done == 3,
            transforms=words[:done],
            curve=curve,
        )

    def by_hand(sparsity: float, bits: int) -> Stage:
        own = dataclasses.replace(config, sparsity=sparsity, bits=bits, clusters=None)
        name = f"{100 * sparsity:g} % pruned, {bits} bits"
        c = jc.chain(*compressors(own, steps))
        return dataclasses.replace(stage(name, c, 3), transforms=(name, words[2]))

    def by_rate(multiplier: float) -> Stage:
        name = f"rate x {multiplier:g}"
        text = f"bits of the file in the loss, multiplier rising to {multiplier:g}"
        ramp = optax.linear_schedule(0.0, multiplier, steps // 2)
        c = jc.rate.entropy_constrained(ramp, where="*")
        return Stage(name, c, config.epochs, True, True, (text, words[2]), BY_RATE)

    curve = [
        *(by_hand(*point) for point in _SPARSITIES_AND_BITS),
        *(by_rate(m) for m in _MULTIPLIERS if m != config.multiplier),
    ]
    return [
        Stage("dense", jc.identity(), config.dense_epochs, from_dense=False),
        stage("pruned", prune, 1),
        stage("+ quantized", both, 2),
        stage("+ distilled", both, 3),
        *(curve if config.curve else ()),
        dataclasses.replace(by_rate(config.multiplier), name="by rate"),
    ]


def _teachers(number: int) -> str:
    return "the dense network" if number == 1 else f"{number} dense networks"


def compressors(config: Config, steps: int) -> tuple[jc.Compressor, jc.Compressor]:
    """The pruner and the quantizer of a run of ``steps`` steps."""
    # Half of the steps to prune, the other half to recover; the first of them on the
    # dense network, whose optimizer has no momentum yet.
    ramp = optax.polynomial_schedule(
        0.0,
        config.sparsity,
        3,
        transition_steps=steps // 2,
        transition_begin=steps // 20,
    )
    prune = jc.magnitude_pruning(
        ramp, budget=jc.prune.budgets.erk, every=max(1, steps // 100), where=is_matrix
    )
    if config.clusters is not None:
        values = jc.weight_sharing(
            config.clusters, every=max(1, steps // 100), where=is_matrix
        )
    else:
        values = jc.weight_quantization(
            bits=config.bits, granularity=jc.PerTensor(), where=is_matrix
        )
    # Biases are few, but at 32 bits they would be a tenth of the file.
    biases = jc.weight_quantization(bits=8, granularity=jc.PerTensor(), where="*/bias")
    return prune, jc.chain(values, biases)


def is_matrix(path: str, leaf: Any) -> bool:
    """Whether a leaf is a weight matrix, embeddings included."""
    return jc.is_weight(path, leaf) or path.endswith("/embedding")
