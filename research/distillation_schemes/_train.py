# SPDX-License-Identifier: Apache-2.0
"""Students who teach students, and images that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcompress import distill

from .. import common
from ..students import KL_ALONE, LABELS_ALONE, Network, Runs, Transfer, only_logits
from ._config import Config
from ._rows import NOISE

Params = Any
LATER = 1000  # a later generation has another start and another order of the data
CHUNK = 1000  # images that are made up at once
SMOOTH = 0.01  # weight of the total variation, beside the cross-entropy of the label
RATE = 0.05  # of Adam; pixels are from 0 to 1


def born_again(runs: Runs, config: Config, seed: int) -> Sequence[Params]:
    """Students, each taught by the one before, and the first by one that was alone."""
    share = runs.transfer(seed, [seed % config.teachers])
    alone = runs.fit(LABELS_ALONE, LABELS_ALONE.setting_in(config.chosen), share, seed)
    starts = (seed + LATER * n for n in range(1, config.generations + 1))
    taught = [
        partial(_taught, runs, runs.student, runs.student, seed, s) for s in starts
    ]
    return distill.generations(alone, taught)[1:]


def assisted(
    runs: Runs, config: Config, between: Network, seed: int
) -> tuple[Params, Params]:
    """A teacher's assistant and its student."""
    _, assistant, student = distill.generations(
        runs.teacher(seed % config.teachers),
        [
            partial(_taught, runs, None, between, seed, seed),
            partial(_taught, runs, between, runs.student, seed, seed),
        ],
    )
    return assistant, student


def _taught(
    runs: Runs,
    teacher: Network | None,
    model: Network,
    seed: int,
    start: int,
    params: Params,
) -> Params:
    """A network trained on the share of a seed, by a teacher with ``params``."""
    share = runs.transfer(seed, [seed % runs.config.teachers])
    if teacher is not None:
        share = share._replace(
            teacher=only_logits(runs.logits(params, share.x, teacher))
        )
    setting = KL_ALONE.setting_in(runs.config.chosen)
    return runs.fit(KL_ALONE, setting, share, start, model=model)


def invented(runs: Runs, config: Config, seed: int) -> Transfer:
    """Images that the teacher of a seed is sure of, as many of each class."""
    by = seed % config.teachers
    noise, params = runs.transfer(seed, [by], NOISE.views), runs.teacher(by)
    invent = runs.compiled("invent", inventor(runs.ask, config.invention))
    labels = np.arange(len(noise.x)) % runs.classes
    x = common.in_chunks(lambda *each: invent(params, *each), CHUNK, noise.x, labels)
    return noise._replace(x=x, teacher=only_logits(runs.logits(params, x)))


def inventor(
    logits_of: Callable[[Any, jax.Array], jax.Array], steps: int
) -> Callable[..., jax.Array]:
    """A function ``(params, start, labels) -> images``, to be compiled.

    Args:
      logits_of: ``(params, images) -> logits`` of the teacher.
      steps: of gradient descent.
    """

    def loss(x: jax.Array, params: Any, labels: jax.Array) -> jax.Array:
        cross = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits_of(params, x), labels
        )
        return cross + SMOOTH * distill.total_variation(x)

    def invent(params: Any, start: jax.Array, labels: jax.Array) -> jax.Array:
        tx, box = optax.adam(RATE), lambda x: jnp.clip(x, 0, 1)
        return distill.invert(loss, start, tx, steps, params, labels, project=box)[0]

    return invent
