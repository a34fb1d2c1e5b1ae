# SPDX-License-Identifier: Apache-2.0
"""The document's ten tables, and which of our records stand beside each of its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from . import _names
from ._names import CONV, DENSE, NETWORKS, of, student

Measure = Literal["parameters", "bytes", "latency", "energy", "training"]
_POINT = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A row of the document, and our networks beside it.

    Attributes:
      row: what the row is about.
      document: its figures, as text.
      before: name of the record of our original.
      after: names of records of the compressed network. If there are several, the one that
        gets smallest counts among those that lose at most ``loss`` on the validation split
        with every seed.
      measure: what gets smaller; None if only accuracy is compared.
      ratio: the document's factor; None if it has none.
      loss: the accuracy that the document loses, as a fraction; None: not compared.
      document_loss: whether ``loss`` is a figure of the document, and no limit of ours.
      floor: the accuracy that the document reports, where it says no original.
      shown: what else gets smaller, shown but not judged.
      runtime: whether the records are those of files, one for each runtime.
      on_top: name of a record whose training, beyond the original's, is what compressing
        costs.
      teacher: name of the record of the student's teacher.
    """

    row: str
    document: str
    before: str
    after: Sequence[str]
    measure: Measure | None = None
    ratio: float | None = None
    loss: float | None = None
    document_loss: bool = True
    floor: float | None = None
    shown: Sequence[Measure] = ()
    runtime: bool = False
    on_top: str = ""
    teacher: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the document.

    Attributes:
      title: what it shows.
      note: what our rows are, and what cannot be compared.
      rule: when a row is better, in words.
      claims: its rows.
    """

    title: str
    note: str
    rule: str
    claims: Sequence[Claim]


_LIMIT = (
    "a larger factor than the document's, at a loss of less than 1 point of accuracy (the "
    "document names no loss here; its quantization and distillation lose 1 point)"
)
_CONTROL = (
    "The original is trained on as long as what is compressed, by the same recipe."
)
_OTHER = "The document's figures are another network's, so factors are compared."


def _three(
    measure: Measure,
    unit: str,
    figures: Sequence[tuple[float, float]],
    after: str,
    before: str = "",
    *,
    runtime: bool = False,
) -> list[Claim]:
    """One row for each network."""
    return [
        Claim(
            row=network,
            document=f"{x:g} -> {y:g} {unit} ({x / y:.2f}x)",
            before=of(network, before),
            after=[of(network, after)],
            measure=measure,
            ratio=x / y,
            loss=_POINT,
            document_loss=False,
            runtime=runtime,
            on_top=of(network, _names.SMALL) if measure == "training" else "",
        )
        for network, (x, y) in zip(NETWORKS, figures, strict=True)
    ]


TABLES = (
    Table(
        title="Original and pruned: parameters and accuracy",
        note=f"{CONV}, 1.2 million parameters: 90 % of the weights pruned while it is "
        "trained on, taught by its dense self. What is not zero is counted. "
        f"{_CONTROL}",
        rule="fewer parameters are left by a larger factor, and less accuracy is lost",
        claims=[
            Claim(
                row=CONV,
                document="1.2 M, 93.5 % -> 0.4 M, 92.7 %",
                before=of(CONV, _names.LONGER),
                after=[of(CONV, _names.PRUNED)],
                measure="parameters",
                ratio=1.2 / 0.4,
                loss=0.008,
            )
        ],
    ),
    Table(
        title="Typical ratios",
        note=f"{DENSE}: float32 bytes of the parameters against bytes of the file, "
        "decoded again. The largest ratio that loses at most 1 point on the "
        f"validation split with every seed. {_CONTROL}",
        rule="a larger factor than the end of the document's range, at a loss of less than "
        "1 point (the document names none)",
        claims=[
            Claim(
                row="pruning",
                document="2-10x",
                before=of(DENSE, _names.LONGER),
                after=[of(DENSE, _names.pruned(p)) for p in _names.SPARSITIES],
                measure="bytes",
                ratio=10,
                loss=_POINT,
                document_loss=False,
            ),
            Claim(
                row="quantization",
                document="4-32x",
                before=of(DENSE, _names.LONGER),
                after=[of(DENSE, _names.rounded(8))]
                + [of(DENSE, _names.trained(bits)) for bits in _names.TRAINED_BITS]
                + [of(DENSE, _names.ternary(t)) for t in _names.THRESHOLDS],
                measure="bytes",
                ratio=32,
                loss=_POINT,
                document_loss=False,
            ),
        ],
    ),
    Table(
        title="Accuracy by technique",
        note=f"{CONV}: 90 % of the weights pruned; weights of 4 bits; a network of half "
        f"the width, taught by the whole one. {_CONTROL}",
        rule="less accuracy is lost",
        claims=[
            Claim(
                row=row,
                document=text,
                before=of(CONV, before),
                after=[of(CONV, after)],
                loss=loss,
                shown=["bytes"],
            )
            for row, text, before, after, loss in (
                ("pruning", "90 -> 88 %", _names.LONGER, _names.PRUNED, 0.02),
                ("quantization", "92 -> 91 %", _names.LONGER, _names.FOUR, 0.01),
                ("distillation", "94 -> 93 %", "", _names.HALF, 0.01),
            )
        ],
    ),
    Table(
        title="Size of the model",
        note="Bytes of float32 parameters, and of the file, decoded again, of the "
        f"network in 4 bits with 80 %, 90 % and 50 % of the weights pruned. {_CONTROL} "
        f"{_OTHER}",
        rule=_LIMIT,
        claims=_three(
            "bytes", "MB", [(50, 30), (80, 60), (100, 75)], _names.SMALL, _names.LONGER
        ),
    ),
    Table(
        title="Inference time",
        note="Files in their runtimes, one image, one thread: filters removed (half of "
        f"them in {DENSE}, a quarter in the others), weights and activations of 8 "
        f"bits, against the whole network in float32. {_OTHER}",
        rule=_LIMIT,
        claims=_three(
            "latency",
            "ms",
            [(10, 8), (12, 9), (15, 11)],
            _names.INT8,
            runtime=True,
        ),
    ),
    Table(
        title="Energy",
        note="One image through the networks whose filters are removed, in float32. A "
        "hardware counter if there is one. Without one, the operation model, a table "
        "for 45 nm, of which the less favorable assumption is judged: everything is a "
        f"float32. {_OTHER}",
        rule=_LIMIT,
        claims=_three("energy", "J", [(15, 10), (18, 12), (20, 13)], _names.NARROW),
    ),
    Table(
        title="Training time",
        note="Seconds of the steps; compilation is apart. After 30 % of the training, "
        "filters are removed as above, and the rest of the steps train what is "
        f"left: as many steps on as many images. {_OTHER}",
        rule=_LIMIT,
        claims=_three("training", "h", [(24, 20), (28, 23), (32, 26)], _names.NARROW),
    ),
    Table(
        title="Pruning of weights, channels and filters",
        note=f"{CONV}: 90 % of the weights; a quarter of the channels, by what they "
        "carry; a quarter of the filters, by their distance to the geometric "
        "median. The document names no original, so its megabytes and milliseconds "
        "have nothing to be compared with; ours are against our dense network.",
        rule="a higher accuracy than the document's",
        claims=[
            Claim(
                row=row,
                document=text,
                before=of(CONV),
                after=[of(CONV, after)],
                floor=floor,
                shown=["bytes", "latency"],
            )
            for row, text, after, floor in (
                ("weights", "87 %, 25 MB, 7 ms", _names.PRUNED, 0.87),
                ("channels", "88 %, 28 MB, 6 ms", _names.CHANNELS, 0.88),
                ("filters", "89 %, 26 MB, 8 ms", _names.NARROW, 0.89),
            )
        ],
    ),
    Table(
        title="What distillation gains",
        note=f"A small convolutional student, alone and taught by the {CONV}, on the same "
        "images; the learning rate of each is chosen on the validation split.",
        rule="the student gains more",
        claims=[
            Claim(
                row=share,
                document="90 -> 93 %",
                before=student(share, taught=False),
                after=[student(share, taught=True)],
                loss=-0.03,
                teacher=of(CONV),
            )
            for share in (_names.FEW, _names.ALL)
        ],
    ),
    Table(
        title="Accuracy by bits",
        note=f"{CONV}: weights rounded to nearest after training, with a scale for each "
        "output, nothing trained.",
        rule="less accuracy is lost than at 32 bits",
        claims=[
            Claim(
                row=f"{bits} bits",
                document=f"{accuracy} %",
                before=of(CONV),
                after=[of(CONV, _names.rounded(bits) if bits < 32 else "")],
                loss=(91 - accuracy) / 100 if bits < 32 else None,
                shown=["bytes"],
            )
            for bits, accuracy in ((32, 91), (16, 90), (8, 89))
        ],
    ),
)
