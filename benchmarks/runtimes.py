# SPDX-License-Identifier: Apache-2.0
"""Exported networks in their runtimes, one thread, against jitted JAX float32.

A ResNet-20 is trained on Fashion-MNIST, whole and with half of its channels (the weights
are kept in --folder). Each variant is exported, its accuracy is that of the exported file
on the whole test set, and its speed is the processor time of a call, in bursts, beside JAX
in one process on one core. The transformer has random weights: its rows are about speed
alone. The peers quantize the same float network by their own calibration. A runtime that
is not installed is left out, and said.
"""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxcompress as jc
from jaxcompress import export

from . import _harness, _peers, _resnet20

RUNTIMES = {"litert": ".tflite", "onnx": ".onnx"}


class Encoder(nn.Module):
    """A transformer of six layers on vectors."""

    width: int = 384
    layers: int = 6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Vectors ``(batch, places, width)`` to vectors."""
        for _ in range(self.layers):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(self.width // 64)(y, y)
            y = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(y)
        return nn.LayerNorm()(x)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A function with its parameters, and ranges if it is quantized."""

    fn: Callable[..., Any]
    params: Any
    ranges: dict[str, Any] | None = None
    dynamic_range: bool = False


def packed_to(bits: int, fn: Callable[..., Any], params: Any, x: Any) -> Any:
    """Quantize weights, with a scale for each output."""
    axes = jc.weight_axes(fn, params, x)
    compressor = jc.weight_quantization(
        bits=bits, granularity=jc.PerChannel(axes=axes), where=axes
    )
    return jc.compress(compressor, params)


def quantized(fn: Callable[..., Any], params: Any, batches: Sequence[Any]) -> Variant:
    """Quantize weights and activations to 8 bits, calibrated on some batches."""
    packed = packed_to(8, fn, params, batches[0])
    modes = jc.quantize_activations(fn, export.targets.litert.policy)
    dense = jc.dense(packed)
    ranges = modes.init(dense, batches[0])
    calibrate = jax.jit(modes.calibrate)
    for batch in batches:
        _, ranges = calibrate(dense, ranges, batch)
    return Variant(fn, packed, ranges)


def masked(params: Any, sparsity: float) -> Any:
    """Set the smallest weights of every kernel to zero, for rows about speed alone."""

    def prune(x: jax.Array) -> jax.Array:
        if x.ndim < 2:
            return x
        return jnp.where(jnp.abs(x) > jnp.quantile(jnp.abs(x), sparsity), x, 0)

    return jax.tree.map(prune, params)


def resnet_variants(folder: Path, calibration: np.ndarray, *, quick: bool) -> Any:
    """Return the variants of the ResNet-20."""
    width = 4 if quick else 16
    dense, half = _resnet20.load(folder)
    fn, small = _resnet20.function(width), _resnet20.function(width // 2)
    batches = [jnp.asarray(x) for x in np.array_split(calibration, 4)]
    sparse = masked(dense, 0.9)
    calibrated = quantized(fn, dense, batches)
    return {
        "float32": Variant(fn, dense),
        "half width": Variant(small, half),
        "int8": calibrated,
        "int8, on the fly": Variant(fn, calibrated.params, dynamic_range=True),
        "half width, int8": quantized(small, half, batches),
        "zeros, 90 %": Variant(fn, sparse),
        "zeros, 90 %, int8": quantized(fn, sparse, batches),
    }


def encoder_variants(x: jax.Array, *, quick: bool) -> Any:
    """Return the variants of the transformer."""
    model = Encoder(64, 1) if quick else Encoder()
    params = model.init(jax.random.key(0), x)
    fn = model.apply
    calibrated = quantized(fn, params, [x])
    four = packed_to(4, fn, params, x)
    return {
        "float32": Variant(fn, params),
        "int8": calibrated,
        "int8, on the fly": Variant(fn, calibrated.params, dynamic_range=True),
        "int8 weights": Variant(fn, calibrated.params),
        "4 bits, on the fly": Variant(fn, four, dynamic_range=True),
        "4-bit weights": Variant(fn, four),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("runtimes", __doc__, rounds=30)
    made.add_argument("--batch", type=int, default=1, help="images of a call")
    made.add_argument("--calls", type=int, default=10, help="in a row in each round")
    made.add_argument("--steps", type=int, default=800, help="of training")
    made.add_argument("--folder", type=Path, help="where the trained weights are kept")
    made.add_argument("--files", type=Path, help="folder to keep the exported files in")
    made.add_argument("--network", choices=("resnet20", "encoder"), default="resnet20")
    settings = _harness.parse(made, argv)
    if min(settings.batch, settings.steps, settings.calls) < 1:
        made.error("--batch, --calls and --steps: 1 or more")
    with tempfile.TemporaryDirectory() as scratch:
        folder = settings.folder or Path(scratch) / "weights"
        if settings.network == "resnet20" and not (folder / _resnet20.HALF).exists():
            _train(folder, settings)
        files = settings.files or Path(scratch)
        with _harness.one_core():
            _harness.show(_rows(folder, files, settings), settings)


def _train(folder: Path, settings: Any) -> None:
    """Train in another process, which may use all cores."""
    command = [sys.executable, "-m", "benchmarks._resnet20", str(folder)]
    command += ["--steps", str(settings.steps)]
    subprocess.run(command + ["--quick"] * settings.quick, check=True)


def _rows(folder: Path, scratch: Path, settings: Any) -> list[Any]:
    variants, x, calibration, test = _task(folder, settings)
    table = Table(x, test)
    for name in ("float32", "half width", "zeros, 90 %"):
        if name in variants:
            v = variants[name]
            table.add(f"JAX {name}", functools.partial(jax.jit(v.fn), v.params), x)
    for runtime, suffix in RUNTIMES.items():
        for name, v in variants.items():
            if v.dynamic_range and runtime != "litert":
                continue
            try:
                table.export(runtime, name, v, scratch / f"{runtime} {name}{suffix}")
            except ImportError as error:
                print(f"left out: {error}")
                break
    floats = {s: scratch / f"{r} float32{s}" for r, s in RUNTIMES.items()}
    for peer in _peers.quantized(floats, calibration, settings.batch):
        session = export.load(peer.path, threads=1)
        table.add(
            peer.name,
            session,
            peer.prepare(np.asarray(x)),
            lambda x, peer=peer, session=session: session(peer.prepare(x)),
            KB=peer.path.stat().st_size / 1e3,
        )
    return table.measure(settings)


def _task(folder: Path, settings: Any) -> tuple[dict[str, Variant], Any, Any, Any]:
    """Return variants, an input, inputs for calibration, and the test set."""
    if settings.network == "resnet20":
        images = _resnet20.images(quick=settings.quick)
        count = 64 if settings.quick else 1024
        calibration = _resnet20.padded(images.train.x[:count])
        variants = resnet_variants(folder, calibration, quick=settings.quick)
        test = (_resnet20.padded(images.test.x), images.test.y)
        return variants, jnp.asarray(test[0][: settings.batch]), calibration, test
    small = settings.quick
    shape = (settings.batch, 8, 64) if small else (settings.batch, 128, 384)
    x = jax.random.normal(jax.random.key(1), shape)
    return encoder_variants(x, quick=small), x, np.asarray(x), None


class Table:
    """Calls to time, and what else is known of them.

    Args:
      x: the input.
      test: images and labels, or None.
    """

    def __init__(self, x: jax.Array, test: tuple[np.ndarray, np.ndarray] | None):
        self.x, self.test = x, test
        self.calls: dict[str, Callable[[], Any]] = {}
        self.extra: dict[str, dict[str, Any]] = {}

    def add(
        self,
        name: str,
        call: Callable[..., Any],
        x: Any,
        on_images: Callable[..., Any] | None = None,
        **extra: Any,
    ) -> None:
        """Add a call, and the accuracy of what it calls."""
        self.calls[name] = functools.partial(call, x)
        self.extra[name] = {"accuracy": self.accuracy(name, on_images or call), **extra}

    def export(self, runtime: str, name: str, v: Variant, path: Path) -> None:
        """Export a variant, and add the file."""
        options = {"dynamic_range": True} if v.dynamic_range else {}
        exporter = getattr(export, runtime)
        made = exporter(v.fn, v.params, v.ranges, (self.x,), path, **options)
        total = len(made.integers) + len(made.floats)
        self.add(
            f"{made.runtime} {name}",
            export.load(path, threads=1),
            np.asarray(self.x),
            simulated=self.accuracy(name, _simulation(v)) if v.ranges else None,
            KB=made.bytes / 1e3,
            integers=f"{len(made.integers)} of {total}",
        )

    def accuracy(self, name: str, call: Callable[..., Any]) -> float | None:
        """Return the percentage of right answers on the whole test set."""
        if self.test is None or "zeros" in name:
            return None
        images, labels = self.test
        right, size = 0, 500
        for start in range(0, len(images), size):
            out = call(images[start : start + size])
            logits = np.asarray(out[0] if isinstance(out, list) else out)
            right += int((logits.argmax(-1) == labels[start : start + size]).sum())
        return 100 * right / len(labels)

    def measure(self, settings: Any) -> list[Any]:
        """Time the calls in turn."""
        rows = _harness.measure(
            {
                name: functools.partial(_burst, call, settings.calls)
                for name, call in self.calls.items()
            },
            units=settings.calls,
            rounds=settings.rounds,
            aims=_aims(self.calls, settings.network == "resnet20"),
            clock=time.process_time,  # all threads are on one core, which others use
        )
        return [
            dataclasses.replace(
                row,
                extra=self.extra[row.name.removesuffix(" (again)")]
                | {"times as fast": 1 / row.ratio[1]},
            )
            for row in rows
        ]


def _burst(call: Callable[[], Any], count: int) -> Any:
    """Call often in a row, as one thing after another comes in."""
    for _ in range(count):
        out = jax.block_until_ready(call())
    return out


def _aims(calls: Any, is_resnet: bool) -> dict[str, str]:
    aims = {
        "LiteRT int8": "<= 0.25" if is_resnet else "<= 0.33",
        "LiteRT half width, int8": "<= 0.10",
        "ONNX Runtime int8": "<= 0.286" if is_resnet else "",
        "JAX zeros, 90 %": "1",
    }
    return {name: aim for name, aim in aims.items() if name in calls and aim}


def _simulation(v: Variant) -> Callable[..., Any]:
    """Return the simulation that a file has to agree with."""
    frozen = jc.quantize_activations(v.fn, export.targets.litert.policy).frozen
    run = jax.jit(lambda params, ranges, x: frozen(jc.dense(params), ranges, x)[0])
    return lambda x: run(v.params, v.ranges, jnp.asarray(x))


if __name__ == "__main__":
    main()
