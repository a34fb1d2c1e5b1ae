# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: each a loss, and what it is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxcompress import distill

from . import _losses as losses
from ._config import Setting
from ._losses import Loss

ALONE, SMOOTH, KL = "student alone", "label smoothing", "kl"
CRD = "contrastive, memory (CRD)"
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)


@dataclasses.dataclass(frozen=True)
class Row:
    """A student.

    Attributes:
      name: in tables.
      loss: what is added to the cross-entropy of the labels; None: nothing.
      part: of the tables.
      setting: name of the row whose chosen setting it has; "": its own.
      weights: candidates for the weight of the loss.
      temperatures: candidates.
      projector: "maps" or "pooled": which of the student's features are projected.
      memory: whether the loss is ``crd``, which needs one.
      labels: whether the student sees them.
      kl: whether ``kl`` is added too, as it was chosen.
      views: how images are made into inputs: "", "shifted", "mixed", "smooth
        noise", "invented".
      ensemble: whether all teachers teach at once.
      average: whether the teacher is the average of the student's own parameters.
      schedule: whether the temperature falls from twice the chosen one to 1.
    """

    name: str
    loss: Loss | None
    part: str = "logits"
    setting: str = ""
    weights: tuple[float, ...] = (1.0, 3.0, 10.0)
    temperatures: tuple[float, ...] = (1.0, 4.0)
    projector: str = ""
    memory: bool = False
    labels: bool = True
    kl: bool = False
    views: str = ""
    ensemble: bool = False
    average: bool = False
    schedule: bool = False

    @property
    def of(self) -> str:
        """Whose setting it has."""
        return self.setting or self.name

    @property
    def traced(self) -> tuple[Any, ...]:
        """What of it makes another program."""
        return (
            self.loss, self.projector, self.memory, self.kl, self.average, self.schedule
        )  # fmt: skip

    def setting_in(self, chosen: Mapping[str, Setting]) -> Setting:
        """Its setting, out of all that were chosen."""
        setting = chosen[self.of]
        return setting if self.labels else dataclasses.replace(setting, labels=0.0)


def temperature_row(temperature: float) -> str:
    """Name of ``kl`` at a temperature."""
    return f"kl, T = {temperature:g}"


_ONE = (1.0,)  # of losses without a temperature
LOGITS = (
    Row(ALONE, None, "labels"),
    Row(SMOOTH, None, "labels"),
    *(
        Row(temperature_row(t), losses.kl, temperatures=(t,), setting=temperature_row(t))
        for t in TEMPERATURES
    ),
    Row("kl, no labels", losses.kl, setting=KL, labels=False),
    Row("kl, all teachers", losses.kl, setting=KL, ensemble=True),
    Row("kl, T falling to 1", losses.kl, setting=KL, schedule=True),
    Row("hard labels", losses.hard_labels, weights=(0.3, 1.0, 3.0), temperatures=_ONE),
    Row("squared logits", losses.squared_logits, temperatures=_ONE),
    Row("reverse kl", losses.reverse_kl),
    Row("Jensen-Shannon", losses.jensen_shannon, weights=(3.0, 10.0, 30.0)),
    Row("decoupled (DKD)", losses.decoupled, weights=(0.3, 1.0, 3.0)),
    Row("DIST", losses.dist),
    Row("standardized kl", losses.standardized_kl, temperatures=(1.0, 2.0)),
    Row("top 3, bucket", losses.of_top(distill.bucket)),
    Row("top 3, renormalize", losses.of_top(distill.renormalize)),
    Row("top 3, zero", losses.of_top(distill.zero)),
)  # fmt: skip
FEATURES = tuple(
    dataclasses.replace(row, part="features", temperatures=_ONE)
    for row in (
        Row("hint", losses.hint, weights=(0.1, 1.0, 10.0), projector="maps"),
        Row("cosine", losses.cosine, weights=(0.3, 3.0, 30.0), projector="maps"),
        Row("attention transfer", losses.attention_transfer, weights=(10, 100, 1000)),
        Row("relational (RKD)", losses.relational, weights=(1.0, 10.0, 100.0)),
        Row(
            "similarity preserving",
            losses.similarity_preserving,
            weights=(30.0, 300.0, 3000.0),
        ),
        Row(
            "contrastive",
            losses.contrastive,
            weights=(0.1, 0.3, 1.0),
            projector="pooled",
        ),
        Row(
            CRD,
            None,
            weights=(0.001, 0.01, 0.1),
            projector="pooled",
            memory=True,
        ),
        Row(
            "hint and kl",
            losses.hint,
            weights=(0.1, 1.0, 10.0),
            projector="maps",
            kl=True,
        ),
        Row(
            "attention transfer and kl",
            losses.attention_transfer,
            weights=(10.0, 100.0, 1000.0),
            kl=True,
        ),
    )
)
VIEWS = tuple(
    Row(f"{name}, {views}", loss, "views", setting=name, views=views)
    for views in ("shifted", "mixed")
    for name, loss in ((ALONE, None), (KL, losses.kl))
)
AVERAGE = Row(
    "own average (EMA)", losses.kl, "schemes", temperatures=_ONE, average=True,
    weights=(0.3, 1.0, 3.0),
)  # fmt: skip
FREE = Row(
    "kl, smooth noise", losses.kl, "schemes", setting=KL, views="smooth noise",
    labels=False,
)  # fmt: skip
INVENTED = dataclasses.replace(FREE, name="kl, invented", views="invented")
# Of the schemes, and of what lacks a class.
LABELS_ALONE = Row(ALONE, None, "schemes", setting=ALONE)
KL_ALONE = Row(KL, losses.kl, "schemes", setting=KL)
LABELS_OF_CLASSES = Row("labels", None, setting=ALONE)
KL_OF_CLASSES = Row("kl", losses.kl, setting=KL, labels=False)
_QUICK = {ALONE, SMOOTH, temperature_row(4.0), "kl, all teachers", "hint and kl", CRD}


def rows(*, quick: bool) -> list[Row]:
    """All rows that are one training, or a few for a trial."""
    every = [*LOGITS, *FEATURES, *VIEWS, AVERAGE, FREE, INVENTED]
    if not quick:
        return every
    return [r for r in every if r.name in _QUICK or r in (VIEWS[3], FREE)]
