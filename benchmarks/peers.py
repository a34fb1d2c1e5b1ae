# SPDX-License-Identifier: Apache-2.0
"""The same work by this library and by others: rounding, training and serving few bits.

A dense network (784-300-100-10) is trained on Fashion-MNIST and given to each library.
Weights have one scale an output. Each library rounds them to 8, 4 and 2 bits, trains on
with rounded weights on the same batches, and computes with 8-bit weights and activations,
for which it may calibrate on validation images. Times are processor time on one core, as
ratios to JAX on floats and, beside them, to floats in the framework of the library.

Libraries that are not installed are left out; one that breaks has a row that says how.
`benchmarks.torch_pruning` is about removing channels, and `benchmarks.runtimes` about the
quantizers of runtimes.

    pip install -e ".[peers]"
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import _harness
from ._libraries import (
    LIBRARIES,
    Library,
    Skipped,
    Trained,
    Work,
    attempt,
    floats,
    missing,
    weights_off,
    work,
)

BITS = (8, 4, 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("peers", __doc__, rounds=12)
    made.add_argument("--steps", type=int, default=2000, help="of the float network")
    made.add_argument(
        "--more", type=int, default=500, help="steps with rounded weights"
    )
    made.add_argument("--batch", type=int, default=128, help="images of a step")
    made.add_argument("--calls", type=int, default=10, help="steps or calls in a round")
    settings = _harness.parse(made, argv)
    if min(settings.steps, settings.more, settings.batch, settings.calls) < 1:
        made.error("--steps, --more, --batch and --calls: 1 or more")
    if settings.quick:
        settings.steps, settings.more, settings.calls = 3, 2, 1
    settings.missing = {
        library.name: reason
        for library in LIBRARIES
        if (reason := missing(library)) is not None
    }
    for name, reason in settings.missing.items():
        print(f"left out: {name} is {reason}", file=sys.stderr)
    present = [library for library in LIBRARIES if library.name not in settings.missing]
    with _harness.one_core():  # before any framework asks how many there are
        given = work(
            quick=settings.quick,
            steps=settings.steps,
            more=settings.more,
            batch=settings.batch,
        )
        tables = [trained(given, present), served(given, present)]
        timed = [row for table in tables for row in table.measure(settings)]
    notes = [note for table in tables for note in table.untimed()]
    print(_harness.table(timed))
    for note in notes:
        print(f"{note['name']}: {note['extra']}")
    _harness.record([*map(dataclasses.asdict, timed), *notes], settings)


class Table:
    """What is known of libraries, and calls to time.

    Args:
      title: before the names of rows.
      baselines: a call of floats, by framework; the first is what ratios are to.
    """

    def __init__(self, title: str, baselines: dict[str, Callable[[], Any]]):
        self.title = title
        self.calls = {self._floats(name): call for name, call in baselines.items()}
        self.extra: dict[str, dict[str, Any]] = {name: {} for name in self.calls}
        self.own = {name: name for name in self.calls}

    def add(
        self, name: str, library: Library, call: Callable[[], Any] | None, **extra: Any
    ) -> None:
        """Add what is known of a row, and what to time if that is known."""
        self.extra.setdefault(name, {}).update(extra)
        self.own[name] = self._floats(library.framework)
        if call is not None:
            self.calls[name] = call

    def measure(self, settings: argparse.Namespace) -> list[_harness.Row]:
        """Time the calls in turn."""
        rows = _harness.measure(
            {
                name: functools.partial(_burst, call, settings.calls)
                for name, call in self.calls.items()
            },
            rounds=settings.rounds,
            units=settings.calls,
            clock=time.process_time,  # all threads are on one core, which others use
        )
        medians = {row.name: row.ratio[1] for row in rows}
        made = []
        for row in rows:
            name = row.name.removesuffix(" (again)")
            own = row.ratio[1] / medians[self.own[name]]
            extra = {"to its floats": own} | self.extra[name]
            made.append(dataclasses.replace(row, extra=extra))
        return made

    def untimed(self) -> list[dict[str, Any]]:
        """Return the rows without times."""
        return [
            {"name": name, "extra": extra}
            for name, extra in self.extra.items()
            if name not in self.calls
        ]

    def _floats(self, framework: str) -> str:
        return f"{self.title}: {framework} floats"


def trained(given: Work, libraries: Sequence[Library]) -> Table:
    """Round weights after training, and train with rounded weights."""
    x, y = next(given.batches(1, seed=2))
    networks = floats(given)
    table = Table(
        "train",
        {n: functools.partial(network.step, x, y) for n, network in networks.items()},
    )
    for network, extra in zip(networks.values(), table.extra.values(), strict=True):
        extra["rounded %"] = given.accuracy(network.predict)
        extra["trained %"] = given.learn(network)
    for bits in BITS:
        for library in libraries:
            _round(table, library, bits, given)
            _train(table, library, bits, given, functools.partial(_step, x=x, y=y))
    return table


def _round(table: Table, library: Library, bits: int, given: Work) -> None:
    rounded, name = library.rounded, f"{bits} bits: {library.name}"
    if rounded is None:
        return

    def measured() -> dict[str, dict[str, float]]:
        off = weights_off(given.layers, lambda layers: rounded(layers, bits))
        return {
            variant: {
                "weights off by %": off[variant],
                "rounded %": given.accuracy(predict),
            }
            for variant, predict in rounded(given.layers, bits).items()
        }

    found = attempt(measured)
    if isinstance(found, Skipped):
        table.add(name, library, None, rounding=found.reason)
        return
    for variant, extra in found.items():
        table.add(name + variant, library, None, **extra)


def _train(
    table: Table,
    library: Library,
    bits: int,
    given: Work,
    step: Callable[..., Any],
) -> None:
    learning, name = library.trained, f"{bits} bits: {library.name}"
    if learning is None:
        return
    found = attempt(
        lambda: {
            variant: (network, given.learn(network))
            for variant, network in learning(given, bits).items()
        }
    )
    if isinstance(found, Skipped):
        table.add(name, library, None, training=found.reason)
        return
    for variant, (network, accuracy) in found.items():
        call = functools.partial(step, network)
        table.add(name + variant, library, call, **{"trained %": accuracy})


def served(given: Work, libraries: Sequence[Library]) -> Table:
    """Compute with 8-bit weights and activations."""
    x = given.test_batch
    networks = floats(given)
    table = Table(
        "serve",
        {n: functools.partial(network.predict, x) for n, network in networks.items()},
    )
    for network, extra in zip(networks.values(), table.extra.values(), strict=True):
        extra["accuracy %"] = given.accuracy(network.predict)
    for library in libraries:
        serving = library.served
        if serving is None:
            continue
        found = attempt(
            lambda serving=serving: {
                variant: (predict, given.accuracy(predict))
                for variant, predict in serving(given).items()
            }
        )
        if isinstance(found, Skipped):
            table.add(f"serve: {library.name}", library, None, serving=found.reason)
            continue
        for variant, (predict, accuracy) in found.items():
            call = functools.partial(predict, x)
            name = f"serve: {library.name}{variant}"
            table.add(name, library, call, **{"accuracy %": accuracy})
    return table


def _step(network: Trained, x: Any, y: Any) -> Any:
    return network.step(x, y)


def _burst(call: Callable[[], Any], count: int) -> Any:
    """Call often in a row, and wait for the last."""
    for _ in range(count):
        out = call()
    return out


if __name__ == "__main__":
    main()
