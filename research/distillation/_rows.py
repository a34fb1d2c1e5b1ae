# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: each a loss, and what it is given."""

from __future__ import annotations

from typing import Any

from jaxcompress import distill

from ..students import ALONE, KL, Loss, Row, kl, of
from . import _losses as losses

SMOOTH = "label smoothing"
CRD = "contrastive, memory (CRD)"
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)


def temperature_row(temperature: float) -> str:
    """Name of ``kl`` at a temperature."""
    return f"kl, T = {temperature:g}"


_ONE = (1.0,)  # of losses without a temperature
LOGITS = (
    Row(ALONE, None, "labels"),
    Row(SMOOTH, None, "labels"),
    *(
        Row(temperature_row(t), kl, temperatures=(t,), setting=temperature_row(t))
        for t in TEMPERATURES
    ),
    Row("kl, no labels", kl, setting=KL, labels=False),
    Row("kl, all teachers", kl, setting=KL, ensemble=True),
    Row("kl, T falling to 1", kl, setting=KL, schedule=True),
    Row(
        "hard labels", of(distill.hard_labels), weights=(0.3, 1.0, 3.0), temperatures=_ONE
    ),
    Row("squared logits", of(distill.squared_logits), temperatures=_ONE),
    Row("reverse kl", of(distill.reverse_kl, "logits", "temperature")),
    Row(
        "Jensen-Shannon", of(distill.jensen_shannon, "logits", "temperature"),
        weights=(3.0, 10.0, 30.0),
    ),
    Row(
        "decoupled (DKD)", of(distill.decoupled, "logits", "labels", "temperature"),
        weights=(0.3, 1.0, 3.0),
    ),
    Row("DIST", losses.dist),
    Row("standardized kl", losses.standardized_kl, temperatures=(1.0, 2.0)),
    Row("top 3, bucket", losses.top(distill.bucket)),
    Row("top 3, renormalize", losses.top(distill.renormalize)),
    Row("top 3, zero", losses.top(distill.zero)),
)  # fmt: skip
_HINT = of(distill.hint, "maps", "projector")
_COSINE = of(distill.cosine, "maps", "projector")
_ATTENTION = of(distill.attention_transfer, "maps")
_SIMILARITY = of(distill.similarity_preserving, "pooled")


def _features(
    name: str, loss: Loss, weights: tuple[float, ...], projector: str = "", **more: Any
) -> Row:
    return Row(
        name, loss, "features", weights=weights, temperatures=_ONE, projector=projector,
        **more,
    )  # fmt: skip


_TENTH, _TENS = (0.1, 1.0, 10.0), (10.0, 100.0, 1000.0)
FEATURES = (
    _features("hint", _HINT, _TENTH, "maps"),
    _features("cosine", _COSINE, (0.3, 3.0, 30.0), "maps"),
    _features("attention transfer", _ATTENTION, _TENS),
    _features("relational (RKD)", losses.relational, (1.0, 10.0, 100.0)),
    _features("similarity preserving", _SIMILARITY, (30.0, 300.0, 3000.0)),
    _features("contrastive", losses.contrastive, (0.1, 0.3, 1.0), "pooled"),
    _features(CRD, losses.crd, (0.001, 0.01, 0.1), "pooled", memory=losses.EMBEDDED),
    _features("hint and kl", _HINT, _TENTH, "maps", kl=True),
    _features("attention transfer and kl", _ATTENTION, _TENS, kl=True),
)
VIEWS = tuple(
    Row(f"{name}, {views}", loss, "views", setting=name, views=views)
    for views in ("shifted", "mixed")
    for name, loss in ((ALONE, None), (KL, kl))
)
AVERAGE = Row(
    "own average (EMA)", kl, "schemes", temperatures=_ONE, average=0.99,
    weights=(0.3, 1.0, 3.0),
)  # fmt: skip
_QUICK = {ALONE, SMOOTH, temperature_row(4.0), "kl, all teachers", "hint and kl", CRD}


def rows(*, quick: bool) -> list[Row]:
    """All rows, or a few for a trial."""
    every = [*LOGITS, *FEATURES, *VIEWS, AVERAGE]
    return [r for r in every if not quick or r.name in _QUICK or r == VIEWS[3]]
