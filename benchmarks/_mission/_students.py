# SPDX-License-Identifier: Apache-2.0
"""A small student of the convolutional network, alone and taught."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jaxcompress import report
from research import data

from . import _measure, _names, _networks, _settings, _train

RATES = (1e-3, 1e-2)
WEIGHT = 10.0  # of the teacher: what research/distillation chose on validation data


def records(
    logits: np.ndarray,
    measured: _measure.Measured,
    settings: _settings.Settings,
    advance: Callable[[str], None],
) -> Iterator[report.Record]:
    """Train students on few labels and on all, by the rate that the validation split likes.

    The taught student sees the same images as the one alone, and also what the teacher says
    of them.

    Args:
      logits: what the teacher says of every training image.
      measured: makes the records.
      settings: how long students are trained, and on how many labels.
      advance: is told what begins.
    """
    train, seed = measured.data.train, measured.seed
    model = _networks.student(tiny=settings.tiny)
    fn = _networks.evaluated(model)
    chosen = np.random.default_rng(seed).permutation(len(train))
    shares = {_names.FEW: round(settings.share * len(train)), _names.ALL: len(train)}
    for (name, count), epochs in zip(shares.items(), settings.student, strict=True):
        rows = chosen[:count]
        split = data.Split(train.x[rows], train.y[rows])
        batch_size = min(64, count)
        for taught in (False, True):
            title = _names.student(name, taught=taught)
            advance(title)
            tried = [
                _train.fit(
                    model,
                    _networks.initial(model, train.x, seed),
                    split,
                    steps=epochs * (count // batch_size),
                    rate=rate,
                    seed=seed,
                    batch_size=batch_size,
                    teacher=logits[rows] if taught else None,
                    weight=WEIGHT,
                )
                for rate in RATES
            ]
            validation = [
                _train.accuracy(fn, fitted.variables, measured.data.validation)
                for fitted in tried
            ]
            best = int(np.argmax(validation))
            yield measured.network(
                title,
                fn,
                tried[best].variables,
                ["taught" if taught else "alone", "rate chosen on validation data"],
                seconds=tried[best].seconds,
                simulated=False,
            )
