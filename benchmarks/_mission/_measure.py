# SPDX-License-Identifier: Apache-2.0
"""Records of networks, and of files in the runtimes that are installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcompress as jc
from jaxcompress import export, report

from . import _names, _train

_EXPORTERS: Mapping[str, Callable[..., Any]] = {
    "LiteRT": export.litert,
    "ONNX Runtime": export.onnx,
}
POLICY = export.targets.litert.policy


@dataclasses.dataclass(frozen=True)
class Version:
    """A network that is exported and timed.

    Attributes:
      variant: what was done to it; "" for the dense network.
      fn: function of ``(variables, x)``.
      variables: dense, or packed where it computes with integers.
      ranges: of its activations, if it computes with integers.
    """

    variant: str
    fn: Callable[..., Any]
    variables: Any
    ranges: Any = None


class Measured:
    """Makes records of one seed.

    Args:
      dataset: the data, of which the test split is read once for each record.
      seed: of everything that is random.
      here: where the numbers come from.
      rounds: how often files are timed in turn.
      runs: calls of a round.
    """

    def __init__(
        self, dataset: Any, seed: int, here: report.Provenance, rounds: int, runs: int
    ) -> None:
        self.data, self.seed, self.here = dataset, seed, here
        self.rounds, self.runs = rounds, runs
        self.image = jnp.asarray(dataset.train.x[:1])

    def network(
        self,
        name: str,
        fn: Callable[..., Any],
        shipped: Any,
        transforms: Sequence[str],
        *,
        seconds: float | None = None,
        simulated: bool = True,
        policy: Any = None,
        energy: report.Energy | None = None,
    ) -> report.Record:
        """Measure a network in JAX: accuracy, bytes, operations."""
        dense = jc.dense(shipped)
        counted = jc.count(fn, shipped, self.image, policy=policy)
        return report.Record(
            name=name,
            provenance=dataclasses.replace(self.here, transforms=tuple(transforms)),
            metrics=[
                self._accuracy(fn, dense, split, getattr(self.data, split))
                for split in ("validation", "test")
            ],
            size=report.size(shipped),
            batch=1,
            count=counted,
            energy=energy or report.Energy(),
            energy_model=report.energy_model(counted),
            training_seconds=seconds,
            simulated=simulated,
        )

    def _accuracy(self, fn: Any, variables: Any, split: str, images: Any) -> Any:
        right = _train.accuracy(fn, variables, images)
        return report.accuracy([right], [self.seed], split=split)

    def files(
        self, network: str, versions: Sequence[Version], folder: Path
    ) -> list[report.Record]:
        """Export versions of a network, and time the files in turn.

        Where no runtime is installed, jitted functions of JAX are timed; integers are then
        left out, because JAX would only simulate them.
        """
        made: list[report.Record] = []
        for runtime, suffix in _names.RUNTIMES.items():
            try:
                files = [
                    (v, self._exported(runtime, v, folder / f"{i}{suffix}"))
                    for i, v in enumerate(versions)
                ]
            except ImportError:
                continue
            timed = self._timed([_file_timer(e, self.image) for _, e in files])
            made += [
                self._file_record(network, runtime, v, exported, latency)
                for (v, exported), latency in zip(files, timed, strict=True)
            ]
        return made or self._in_jax(network, versions)

    def _exported(self, runtime: str, v: Version, path: Path) -> Any:
        return _EXPORTERS[runtime](v.fn, v.variables, v.ranges, (self.image,), path)

    def _timed(self, timers: Sequence[Callable[[int], Any]]) -> list[report.Latency]:
        """Time in turn, and keep the round of each in which the machine was quietest."""
        rounds = [[timer(self.runs) for timer in timers] for _ in range(self.rounds)]
        return [
            min(own, key=lambda latency: latency.median_seconds)
            for own in zip(*rounds, strict=True)
        ]

    def _file_record(
        self, network: str, runtime: str, v: Version, exported: Any, latency: Any
    ) -> report.Record:
        session = export.load(exported.path, threads=1)
        images = self.data.test
        parts = [
            np.asarray(session(images.x[i : i + 500])[0])
            for i in range(0, len(images), 500)
        ]
        right = float((np.concatenate(parts).argmax(-1) == images.y).mean())
        return report.Record(
            name=_names.of(network, v.variant, runtime),
            provenance=dataclasses.replace(
                self.here, transforms=(v.variant or "trained", f"exported: {runtime}")
            ),
            metrics=[report.accuracy([right], [self.seed], split="test")],
            batch=1,
            latency=latency,
        )

    def _in_jax(self, network: str, versions: Sequence[Version]) -> list[report.Record]:
        floats = [v for v in versions if v.ranges is None]
        timers = [_jax_timer(v, self.image) for v in floats]
        return [
            report.Record(
                name=_names.of(network, v.variant, _names.JAX),
                provenance=dataclasses.replace(
                    self.here, transforms=(v.variant or "trained",)
                ),
                metrics=[
                    self._accuracy(v.fn, v.variables, "test", self.data.test),
                ],
                batch=1,
                latency=latency,
            )
            for v, latency in zip(floats, self._timed(timers), strict=True)
        ]


def energies(versions: Sequence[Version], image: Any) -> dict[str, report.Energy]:
    """Read the energy of a call from a counter, or say why there is none."""

    def call(v: Version) -> Callable[[], Any]:
        run = jax.jit(v.fn)
        return lambda: run(v.variables, image)

    return report.energy({v.variant: call(v) for v in versions if v.ranges is None})


def integers(fn: Callable[..., Any], variables: Any, images: Any) -> tuple[Any, Any]:
    """Round weights and activations to 8 bits; returns packed variables and ranges."""
    packed = jc.compress(to_bits(8, fn, variables, images[:1]), variables)
    modes = jc.quantize_activations(fn, POLICY)
    dense = jc.dense(packed)
    ranges = modes.init(dense, images[:256])
    calibrate = jax.jit(modes.calibrate)
    for start in range(0, len(images), 256):
        _, ranges = calibrate(dense, ranges, jnp.asarray(images[start : start + 256]))
    return packed, ranges


def to_bits(
    bits: int, fn: Callable[..., Any], variables: Any, x: Any, **options: Any
) -> jc.Compressor:
    """Quantize what products multiply, with a scale for each output."""
    axes = jc.weight_axes(fn, variables, x)
    per_channel = jc.PerChannel(axes=axes)
    return jc.weight_quantization(
        bits=bits, granularity=per_channel, where=axes, **options
    )


def _file_timer(exported: Any, image: Any) -> Callable[[int], report.Latency]:
    x = np.asarray(image)
    return lambda runs: report.exported_latency(exported, x, runs=runs, warmup=10)


def _jax_timer(v: Version, image: Any) -> Callable[[int], report.Latency]:
    run = jax.jit(v.fn)
    return lambda runs: report.latency(run, v.variables, image, runs=runs, warmup=10)
