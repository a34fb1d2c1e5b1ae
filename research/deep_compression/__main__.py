# SPDX-License-Identifier: Apache-2.0
"""``python -m research.deep_compression``: train, compress, save, reload and measure."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

import jaxcompress as jc
from jaxcompress import report

from .. import common
from ..data import Dataset
from ._config import DEFAULTS, Config, config_of
from ._networks import MODELS
from ._stages import Stage, compressors, stages
from ._tables import CONTROL, PACKED, claims, draw, summary, table
from ._train import StageTrainer, latency, mean_logits

_OTHER_SEEDS = 1000  # apart from those of the networks that are compressed

CODEC = common.Codec[report.Record](
    lambda record: json.loads(record.to_json()),
    lambda fields: report.Record.from_json(json.dumps(fields)),
)


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", choices=list(MODELS), help="network")
    add("--sparsity", type=float, metavar="S", help="fraction of pruned weights")
    codes = parser.add_mutually_exclusive_group()
    codes.add_argument("--bits", type=int, metavar="B", help="bits a weight (4)")
    codes.add_argument(
        "--clusters", type=int, metavar="K", help="share K values instead of quantizing"
    )
    add("--teachers", type=int, metavar="K", help="dense networks that teach together")
    add("--temperature", type=float, metavar="T", help="of distillation (1)")
    add("--distill", type=float, metavar="W", help="weight of distillation (0.9)")
    add("--multiplier", type=float, metavar="M", help="cost of a bit a weight")
    add("--curve", action="store_true", help="train other settings as well")
    add("--dense-epochs", type=int, metavar="N", help="training of the dense network")
    add("--epochs", type=int, metavar="N", help="training of each compressed one")
    add("--batch-size", type=int, metavar="N", help="examples a step")
    add("--learning-rate", type=float, metavar="R", help="of Adam (0.001)")


def checked_config(data: str, **options: Any) -> Config:
    """Settings of a run, which techniques take."""
    config = config_of(data, **options)
    try:
        compressors(config, steps=100)
        jc.rate.entropy_constrained(config.multiplier)
        jc.magnitude_pruning(config.sparsity)  # the ramp to it is a schedule, unchecked
    except ValueError as error:
        raise common.RunError(str(error)) from error
    return config


def run(config: Config, session: common.Session) -> None:
    """Run the jobs and write the results."""
    listed = partial(jobs, config, session.data, session.folder.path)
    try:
        records = session.run(report.Record, listed, codec=CODEC)
    except jc.CheckpointError as error:
        raise common.RunError(str(error)) from error
    session.finish(
        summary(session.data, records),
        table(config, len(session.data.test), records),
        partial(draw, config, records),
        claims(records),
    )


def jobs(
    config: Config, data: Dataset, path: Path, records: Sequence[report.Record]
) -> Iterator[common.Job[report.Record]]:
    """Every stage of every seed, its file reloaded, and the control."""
    model = MODELS[config.model](classes=data.num_classes)
    trained = stages(config, len(data.train) // config.batch_size)
    trainers = {s.name: StageTrainer(config, data, model, s) for s in trained}
    once = common.Once()

    def artifact(seed: int, row: str) -> Path:
        return path / f"{_slug(seed, row)}.safetensors"

    def dense(seed: int) -> Any:
        return once(("dense", seed), lambda: jc.dense(_load(artifact(seed, "dense"))))

    def teacher(seed: int) -> Any:
        def logits() -> np.ndarray:
            files = [_another(k) for k in range(1, config.teachers)]
            networks = [dense(seed), *(_load(artifact(seed, file)) for file in files)]
            return mean_logits(
                [common.logits(model, params, data.train.x) for params in networks]
            )

        return once(("teacher", seed), logits)

    def record(
        stage: Stage, seed: int, tree: Any, model: nn.Module, seconds: float | None
    ) -> list[report.Record]:
        params = jc.dense(tree)
        metrics = [
            report.accuracy([common.accuracy(model, params, part)], [seed], split=name)
            for name, part in (("test", data.test), ("validation", data.validation))
        ]
        return [
            report.Record(
                name=stage.name,
                provenance=report.provenance(stage.transforms),
                metrics=metrics,
                size=report.size(artifact(seed, stage.name), expected=tree),
                latency=latency(model, tree, data.test),
                training_seconds=seconds,
                simulated=bool(stage.transforms),
            )
        ]

    def fit(
        trainer: StageTrainer, file: Path, seed: int, start: Any, logits: Any
    ) -> tuple[Any, float]:
        """Train a stage and save what ships; the tree, and the seconds that it took."""
        checkpoints = path / "checkpoints" / file.stem
        params, state, seconds = trainer.train(seed, start, logits, checkpoints)
        tree = trainer.stage.compressor.finalize(params, state)
        jc.save(file, tree)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return tree, seconds

    def train(trainer: StageTrainer, seed: int) -> list[report.Record]:
        """Train a stage, save what ships, and measure it."""
        stage = trainer.stage
        start = dense(seed) if stage.from_dense else trainer.start(seed)
        logits = teacher(seed) if stage.distilled else None
        tree, seconds = fit(trainer, artifact(seed, stage.name), seed, start, logits)
        return record(stage, seed, tree, trainer.model, seconds)

    def train_teacher(number: int, seed: int) -> list[report.Record]:
        """Train a dense network that only teaches, and has no row."""
        trainer, other = trainers["dense"], _OTHER_SEEDS * number + seed
        file = artifact(seed, _another(number))
        fit(trainer, file, other, trainer.start(other), None)
        return []

    def reload(seed: int) -> list[report.Record]:
        """Evaluate the file of the last stage as a stranger would get it."""
        file, stage = artifact(seed, PACKED), trained[-1]
        jc.save(file, _load(artifact(seed, stage.name)))
        stage = dataclasses.replace(stage, name=PACKED)
        return record(stage, seed, _load(file), model, None)

    def control(seed: int) -> list[report.Record]:
        """A dense network as small as the file of seed 0."""
        size = next(r.size for r in records if r.name == PACKED)
        assert size is not None
        trainer = once("control", lambda: _control(config, data, size.file_bytes))
        return train(trainer, seed)

    for seed in range(config.seeds):
        others = range(1, config.teachers)
        makes = {
            **{_another(k): partial(train_teacher, k) for k in others},
            **{s: partial(train, t) for s, t in trainers.items()},
            PACKED: reload,
            CONTROL: control,
        }
        for name, make in makes.items():
            yield common.Job(
                f"seed {seed}: {name}", partial(make, seed), [artifact(seed, name)]
            )


def _control(config: Config, data: Dataset, nbytes: int) -> StageTrainer:
    """A dense network of no more bytes: what compression has to beat.

    Or the smallest of its kind, where even that is larger; the table shows its bytes.
    """
    full: Any = MODELS[config.model](classes=data.num_classes)
    narrower = (full.clone(widths=w) for w in common.narrowed(full.widths))
    model = common.no_more_bytes(narrower, nbytes, data.train.x[:1])
    epochs = config.dense_epochs + config.epochs
    stage = Stage(CONTROL, jc.identity(), epochs, from_dense=False)
    return StageTrainer(config, data, model, stage)


def _load(file: Path) -> Any:
    try:
        return jc.load(file)
    except jc.ArtifactError as error:
        raise common.RunError(
            f"{error}\nMove that file away; --resume then makes it again."
        ) from error


def _another(number: int) -> str:
    return f"teacher {number}"


def _slug(seed: int, row: str) -> str:
    name = "".join(c if c.isalnum() else "-" for c in row).strip("-")
    return f"seed{seed}-{name}"


STUDY = common.Study(
    name="deep_compression",
    about="Train a network, prune, quantize and distill it, write it to one small file, "
    "and evaluate what the file holds.",
    config=checked_config,
    run=run,
    data=list(DEFAULTS),
    options=_options,
    free=("seeds", "curve"),
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
