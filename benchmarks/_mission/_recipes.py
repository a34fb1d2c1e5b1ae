# SPDX-License-Identifier: Apache-2.0
"""What is made of each network: the dense one is trained once, and compressed often."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

import jaxcompress as jc
from jaxcompress import prune, quantize, report

from . import _measure, _names, _networks, _settings, _students, _train

Advance = Callable[[str], None]


class Recipes:
    """All variants of one network and one seed.

    Args:
      name: of the network.
      measured: makes the records.
      settings: how long things are trained.
    """

    def __init__(
        self, name: str, measured: _measure.Measured, settings: _settings.Settings
    ) -> None:
        self.name, self.measured, self.settings = name, measured, settings
        self.data, self.seed = measured.data, measured.seed
        self.training = settings.networks[name]
        self.model = _networks.whole(name, tiny=settings.tiny)
        self.fn = _networks.evaluated(self.model)

    def records(self, advance: Advance) -> Iterator[report.Record]:
        """Train, compress and measure; ``advance`` is told what begins."""
        advance("dense")
        self.start = _networks.initial(self.model, self.data.train.x, self.seed)
        steps = self.training.steps
        self.early = max(1, round(_settings.EARLY * steps))
        self.dense = self._fit(self.model, self.start, steps, early=self.early)
        self.teacher = _train.logits(self.fn, self.dense.variables, self.data.train.x)
        self.versions = [_measure.Version("", self.fn, self.dense.variables)]
        yield from self._narrow_networks(advance)
        advance(_names.LONGER)
        yield self._tuned(_names.LONGER, None)[0]
        advance(_names.SMALL)
        both = jc.chain(self._pruner(self.training.pruned), self._learned_bits(4))
        yield self._tuned(_names.SMALL, both)[0]
        if self.name == _names.DENSE:
            yield from self._sweep(advance)
        if self.name == _names.CONV:
            yield from self._techniques(advance)
            yield from _students.records(
                self.teacher, self.measured, self.settings, advance
            )
        advance("in runtimes")
        with tempfile.TemporaryDirectory() as folder:
            yield from self.measured.files(self.name, self.versions, Path(folder))

    def _fit(self, model: Any, variables: Any, steps: int, **options: Any) -> Any:
        settings = {
            "rate": self.training.rate,
            "seed": self.seed,
            "batch_size": self.training.batch_size,
            "split": self.data.train,
        }
        return _train.fit(model, variables, steps=steps, **(settings | options))

    def _narrow_networks(self, advance: Advance) -> Iterator[report.Record]:
        """The dense network, and what is left after filters are removed in training."""
        advance(_names.NARROW)
        score = jc.structured.scores.geometric_median
        v, seconds = self._narrow(_names.NARROW, lambda: (score, {}))
        images = self.data.train.x[: self.settings.calibration]
        packed, ranges = _measure.integers(v.fn, v.variables, images)
        self.versions.append(_measure.Version(_names.INT8, v.fn, packed, ranges))
        energy = _measure.energies(self.versions, self.measured.image)
        taken = {"": self.dense.seconds, _names.NARROW: seconds, _names.INT8: seconds}
        for v in self.versions:
            yield self.measured.network(
                _names.of(self.name, v.variant),
                v.fn,
                v.variables,
                [v.variant or "trained"],
                seconds=taken[v.variant],
                simulated=v.ranges is not None,
                policy=None if v.ranges is None else _measure.POLICY,
                energy=energy.get(v.variant),
            )

    def _narrow(self, variant: str, ranked: Callable[[], Any]) -> Any:
        """Remove channels early in training, and train what is left.

        Returns:
          The network, and the seconds that all of its training took.
        """
        score, extras = ranked()
        kept, image = self.training.kept, self.measured.image
        early = self.dense.early
        sliced, removing = _networks.sliced(
            self.model, early, image, score, kept, **extras
        )
        small = _networks.narrowed(self.model, kept)
        left = self.training.steps - self.early
        share = self.early / self.training.steps
        # The dense network's own rate at that step.
        rate = self.training.rate * (1 + math.cos(math.pi * share)) / 2
        rest = self._fit(small, sliced, left, rate=rate, warmup=False)
        version = _measure.Version(variant, _networks.evaluated(small), rest.variables)
        self.versions.append(version)
        return version, share * self.dense.seconds + removing + rest.seconds

    def _by_activation(self) -> Any:
        statistic = jc.program.statistics.max_magnitude()
        images = jnp.asarray(self.data.train.x[:256])
        stats = jc.observe(self.fn, self.dense.early, [images], statistic)
        return jc.structured.scores.activation, {"stats": stats}

    def _pruner(self, percent: int) -> jc.Compressor:
        ramp = prune.schedules.cubic(percent / 100, end=self.training.tuning // 2)
        every = max(1, self.training.tuning // 50)
        erk = prune.budgets.erk  # spares the few weights of first and last layers
        return jc.magnitude_pruning(ramp, every=every, budget=erk)

    def _learned_bits(self, bits: int) -> jc.Compressor:
        scales = quantize.scales
        learned = scales.lsq(start=scales.mse())
        return _measure.to_bits(
            bits,
            lambda params, x: self.fn(self._with(params), x),
            self.dense.variables["params"],
            self.measured.image,
            scale=learned if bits < 4 else scales.suited,
        )

    def _with(self, params: Any) -> Any:
        return self.dense.variables | {"params": params}

    def _tuned(
        self, variant: str, compressor: jc.Compressor | None
    ) -> tuple[report.Record, Any]:
        """Train the dense network on, taught by itself, and compress it meanwhile."""
        tuned = self._fit(
            self.model,
            self.dense.variables,
            self.training.tuning,
            rate=self.training.tuning_rate,
            compressor=compressor,
            teacher=self.teacher,
            seed=self.seed + 1000,
        )
        record = self.measured.network(
            _names.of(self.name, variant),
            self.fn,
            tuned.shipped,
            ["trained", variant, "distilled from the dense network"],
            seconds=self.dense.seconds + tuned.seconds,
            simulated=compressor is not None,
        )
        return record, tuned.shipped

    def _rounded(self, bits: int) -> report.Record:
        compressor = _measure.to_bits(
            bits, self.fn, self.dense.variables, self.measured.image
        )
        return self.measured.network(
            _names.of(self.name, _names.rounded(bits)),
            self.fn,
            jc.compress(compressor, self.dense.variables),
            ["trained", f"weights rounded to {bits} bits"],
            seconds=self.dense.seconds,
        )

    def _sweep(self, advance: Advance) -> Iterator[report.Record]:
        """Ratios of pruning and of quantization."""
        for percent in _names.SPARSITIES:
            advance(_names.pruned(percent))
            yield self._tuned(_names.pruned(percent), self._pruner(percent))[0]
        yield self._rounded(8)
        for bits in _names.TRAINED_BITS:
            advance(_names.trained(bits))
            yield self._tuned(_names.trained(bits), self._learned_bits(bits))[0]
        for threshold in _names.THRESHOLDS:
            variant = _names.ternary(threshold)
            advance(variant)
            yield self._tuned(variant, quantize.trained_ternary(threshold))[0]

    def _techniques(self, advance: Advance) -> Iterator[report.Record]:
        """One technique at a time."""
        advance(_names.PRUNED)
        record, shipped = self._tuned(_names.PRUNED, self._pruner(90))
        self.versions.append(_measure.Version(_names.PRUNED, self.fn, shipped))
        yield record
        advance(_names.FOUR)
        yield self._tuned(_names.FOUR, self._learned_bits(4))[0]
        yield from map(self._rounded, _names.ROUNDED_BITS)
        advance(_names.CHANNELS)
        v, seconds = self._narrow(_names.CHANNELS, self._by_activation)
        yield self._small(v, [_names.CHANNELS], seconds)
        advance(_names.HALF)
        half = _networks.narrowed(self.model, 0.5)
        first = _networks.initial(half, self.data.train.x, self.seed)
        taught = self._fit(half, first, self.training.steps, teacher=self.teacher)
        fn = _networks.evaluated(half)
        v = _measure.Version(_names.HALF, fn, taught.variables)
        transforms = ["half width", "distilled from the dense network"]
        yield self._small(v, transforms, self.dense.seconds + taught.seconds)

    def _small(
        self, v: _measure.Version, transforms: Sequence[str], seconds: float
    ) -> report.Record:
        return self.measured.network(
            _names.of(self.name, v.variant),
            v.fn,
            v.variables,
            transforms,
            seconds=seconds,
            simulated=False,
        )
