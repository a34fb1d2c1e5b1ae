# SPDX-License-Identifier: Apache-2.0
"""Who teaches whom: a student that teaches the next one, and a teacher's assistant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxcompress import distill

from . import _losses as losses
from ._network import Network
from ._rows import ALONE, KL, Row
from ._runs import Params, Runs, said
from ._student import Transfer

FIRST = Row(ALONE, None, "schemes", setting=ALONE)
BY = Row(KL, losses.kl, "schemes", setting=KL)
LATER = 1000  # a later generation has another start and another order of the data


def born_again(runs: Runs, seed: int, generations: int) -> Sequence[Params]:
    """Students, each taught by the one before, and the first by one that was alone."""
    student, share = runs.student, _share(runs, seed)
    alone = runs.fit(FIRST, FIRST.given(runs.config.chosen), share, seed)
    trainings = [
        _taught(runs, student, student, seed, seed + LATER * number)
        for number in range(1, generations + 1)
    ]
    return distill.generations(alone, trainings)[1:]


def assisted(runs: Runs, seed: int) -> tuple[Params, Params]:
    """A teacher's assistant and its student."""
    _, assistant, student = distill.generations(
        runs.teacher(seed % runs.config.teachers),
        [
            _taught(runs, None, runs.assistant, seed, seed),
            _taught(runs, runs.assistant, runs.student, seed, seed),
        ],
    )
    return assistant, student


def _share(runs: Runs, seed: int) -> Transfer:
    return runs.transfer(seed, [seed % runs.config.teachers])


def _taught(
    runs: Runs, teacher: Network | None, model: Network, seed: int, start: int
) -> Callable[[Params], Params]:
    """A training on the share of ``seed``, from the start of another."""
    share = _share(runs, seed)

    def train(params: Params) -> Params:
        transfer = share
        if teacher is not None:
            logits = runs.logits(params, share.x, teacher)
            transfer = share._replace(teacher=said(logits))
        setting = BY.given(runs.config.chosen)
        return runs.fit(BY, setting, transfer, start, model=model)

    return train
