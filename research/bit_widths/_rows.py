# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: each a compressor, perhaps a way for activations, or qwix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jaxcompress as jc
from jaxcompress import formats, quantize
from jaxcompress.formats import Format, Int
from jaxcompress.program import ActivationQuantizer

Axes = jc.program.WeightAxes
Make = Callable[[Axes], jc.Compressor]
# Convolutions and dense layers alike.
CHANNELS = jc.PerChannel(axes=jc.Axes(outputs=-1))


@dataclasses.dataclass(frozen=True)
class Row:
    """One cell of a table: a method at a width.

    Attributes:
      method: its name.
      bits: ``"4"``, ``"bf16"`` or, with activations, ``"W4A4"``.
      compressor: ``axes -> compressor``; None of qwix.
      start: ``"float"``: trained on from the float network; ``"scratch"``; ``"after"``:
        not trained.
      activations: how activations are rounded, but for the image, which keeps 8 bits.
      grams: whether ``update`` is given second moments of the inputs.
      times: how often the epochs that others are trained on for.
      setting: whose learning rate it is trained with, see ``Config.rates``.
      qwix: qwix's types of weights and activations, if it is qwix that quantizes.
    """

    method: str
    bits: str
    compressor: Make | None
    start: str = "after"
    activations: ActivationQuantizer | None = None
    grams: bool = False
    times: int = 1
    setting: str = ""
    qwix: tuple[str, str | None] | None = None

    @property
    def name(self) -> str:
        """For the progress bar."""
        return f"{self.method}, {self.bits}, {self.start}"


FLOAT = "float"
LONGER = "float, trained on"
QWIX = "qwix"
SMALL = "small float network"
TIMES = 3
FOUR = "LSQ, four levels"
NARROW = (8, 4, 3, 2)
SCALES: dict[str, Callable[[], quantize.scales.AnyScale]] = {
    "absmax": lambda: quantize.scales.absmax,
    "mse": quantize.scales.mse,
    "LSQ": quantize.scales.lsq,
}
# Scales of weights and of activations, by the name of the row.
PAIRS: dict[str, tuple[str, Callable[[], quantize.scales.AnyScale]]] = {
    "absmax, moving average": ("absmax", quantize.scales.moving_average),
    "LSQ, LSQ": ("LSQ", quantize.scales.lsq),
    "LSQ, PACT": ("LSQ", quantize.scales.pact),
    "LSQ, LSQ+": ("LSQ", quantize.scales.lsq_plus),
}


def _weights(fmt: Format, **options: Any) -> Make:
    granularity = CHANNELS if fmt.scaled else None
    return lambda axes: jc.weight_quantization(
        fmt=fmt, granularity=granularity, **options
    )


def _gptq(bits: int, scale: quantize.scales.Scale) -> Make:
    return lambda axes: quantize.gptq_quantization(bits, axes=axes, scale=scale)


def _plain(axes: Axes) -> jc.Compressor:
    del axes
    return jc.identity()


def _after_training() -> Iterator[Row]:
    """Part A, without training."""
    wide = {"bf16": formats.BF16, "f16": formats.F16, "int16": Int(16)}
    for bits, fmt in {**wide, **{str(b): Int(b) for b in (*NARROW, 1)}}.items():
        yield Row("nearest", bits, _weights(fmt))
    hqq = quantize.post_training.hqq()
    for name, scale in (("mse", quantize.scales.mse()), ("HQQ", hqq)):
        for b in NARROW:
            yield Row(f"nearest, {name}", str(b), _weights(Int(b), scale=scale))
    for name, scale in (("GPTQ", quantize.scales.absmax), ("GPTQ, HQQ", hqq)):
        for b in NARROW:
            yield Row(name, str(b), _gptq(b, scale), grams=True)


def _in_training() -> Iterator[Row]:
    """Parts A and B, trained on from the float network."""

    def weights(name: str, bits: int) -> Make:
        return _weights(Int(bits), scale=SCALES[name]())

    for name in SCALES:
        for b in NARROW if name == "LSQ" else NARROW[1:]:
            yield Row(name, str(b), weights(name, b), start="float", setting=name)
    # Two symmetric bits have three levels; with the fourth, on one side, they have all.
    four = _weights(Int(2, narrow=False), scale=quantize.scales.lsq())
    yield Row(FOUR, "2", four, start="float", setting="LSQ")
    for name, (scale, activations) in PAIRS.items():
        for b in NARROW if name == "LSQ, LSQ" else NARROW[1:]:
            rounded = ActivationQuantizer(Int(b, symmetric=False), activations())
            yield Row(
                name, f"W{b}A{b}", weights(scale, b), start="float",
                activations=rounded, setting=scale,
            )  # fmt: skip


def _few_levels(start: str) -> list[Row]:
    """Part C: binary and ternary weights, from a start."""
    scales, gradients, sign = quantize.scales, quantize.gradients, Int(1)
    kinds: dict[tuple[str, str], Make] = {
        ("BinaryConnect", "1"): _weights(
            sign, scale=scales.unit, gradient=gradients.clipped
        ),
        ("XNOR", "1"): _weights(sign),
        ("Bi-Real", "1"): _weights(sign, gradient=gradients.polynomial),
        ("LSQ", "1"): _weights(sign, scale=scales.lsq(start=scales.absmax)),
        ("TWN", "2"): _weights(Int(2), scale=scales.mean_above()),
        ("TTQ", "2"): lambda axes: quantize.trained_ternary(),
    }
    rows = [
        Row(
            method, bits, make, start=start,
            setting="LSQ, 1 bit" if method == "LSQ" else method,
        )
        for (method, bits), make in kinds.items()
    ]  # fmt: skip
    if start == "scratch":
        return [row for row in rows if row.method != "LSQ"]
    rounded = ActivationQuantizer(Int(1, symmetric=False), scales.lsq())
    return rows + [
        dataclasses.replace(
            row, method=f"{row.method}, LSQ", bits="W1A1", activations=rounded
        )
        for row in rows
        if row.method in ("XNOR", "LSQ")
    ]


def _peers() -> Iterator[Row]:
    """The same network in qwix: as it is, trained on, and with rounded activations."""
    for start, widths in (("after", (*NARROW, 1)), ("float", NARROW)):
        for b in widths:
            types = (f"int{b}", None)
            yield Row(QWIX, str(b), None, start=start, setting=QWIX, qwix=types)
    types = ("int8", "int8")
    yield Row(QWIX, "W8A8", None, start="float", setting=QWIX, qwix=types)


def rows(*, quick: bool) -> list[Row]:
    """All of them. qwix's are the last, since it patches JAX for the whole process."""
    floats = Row(LONGER, "32", _plain, start="float", setting=FLOAT)
    trained = [*_in_training(), *_few_levels("float")]
    more_time = {(LONGER, "32"), ("LSQ", "2"), ("XNOR", "1"), ("TWN", "2")}
    longer = [
        dataclasses.replace(row, method=f"{row.method}, {TIMES} times", times=TIMES)
        for row in (floats, *trained)
        if (row.method, row.bits) in more_time
    ]
    # As many bytes as LSQ at those bits; trained for as long as all others together.
    small = [Row(SMALL, str(b), _plain, start="scratch") for b in (*NARROW, 1)]
    every = [
        Row(FLOAT, "32", _plain),
        floats,
        *_after_training(),
        *trained,
        *_few_levels("scratch"),
        *longer,
        *small,
        *_peers(),
    ]
    return [row for row in every if not quick or (row.method, row.bits) in _QUICK]


_QUICK = {
    (FLOAT, "32"),
    (LONGER, "32"),
    ("nearest", "2"),
    ("GPTQ", "2"),
    ("LSQ", "2"),
    ("LSQ, LSQ", "W2A2"),
    ("XNOR", "1"),
    (SMALL, "2"),
    (QWIX, "2"),
}
