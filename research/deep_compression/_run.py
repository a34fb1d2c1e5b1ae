# SPDX-License-Identifier: Apache-2.0
"""The run itself: every seed, every stage, the file, and the control."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxcompress as jc
from jaxcompress import report

from ..data import Dataset
from ._config import Config
from ._models import MODELS
from ._progress import Progress
from ._results import Folder, RunError
from ._stages import Stage, stages
from ._train import Evaluator, Trainer

PACKED = "packed"
CONTROL = "small dense"


def run(
    config: Config, dataset: Dataset, folder: Folder, progress: Progress
) -> dict[str, list[report.Record]]:
    """Train, compress, save, reload and measure.

    Returns:
      ``{row: [record of seed 0, record of seed 1, ...]}``, in the order of the table.
      What an earlier run of the folder has finished is read and not done again.
    """
    model = MODELS[config.model](classes=dataset.num_classes)
    steps_per_epoch = len(dataset.train) // config.batch_size
    rows = stages(config, steps_per_epoch)
    trainers = {s.name: Trainer(config, dataset, model, s) for s in rows}
    control: Trainer | None = None
    evaluator = Evaluator(model)
    records: dict[str, list[report.Record]] = {}
    for seed in range(config.seeds):
        job = _Seed(config, dataset, folder, progress, seed)
        dense, teacher = None, None
        for stage in rows:
            record, tree = job.train(trainers[stage.name], evaluator, dense, teacher)
            records.setdefault(stage.name, []).append(record)
            if dense is None:
                dense = jc.dense(tree)
                teacher = evaluator.logits(dense, dataset.train)
        packed = job.reload(rows[-1], evaluator)
        records.setdefault(PACKED, []).append(packed)
        if control is None:
            control = _control(config, dataset, records[PACKED][0].size)
        record, _ = job.train(control, Evaluator(control.model), None, None)
        records.setdefault(CONTROL, []).append(record)
    return records


@dataclasses.dataclass(frozen=True)
class _Seed:
    config: Config
    dataset: Dataset
    folder: Folder
    progress: Progress
    seed: int

    def train(
        self,
        trainer: Trainer,
        evaluator: Evaluator,
        dense: Any,
        teacher: np.ndarray | None,
    ) -> tuple[report.Record, Any]:
        """Train a stage, save what ships, and record it; or read what is recorded."""
        stage = trainer.stage
        file = self.folder.artifact(self.seed, stage.name)
        record = self.folder.record(self.seed, stage.name)
        if record is not None:
            self.progress.skip(trainer.steps)
            return record, _load(file)
        start = dense
        if not stage.from_dense:
            example = self.dataset.train.x[:1]
            start = trainer.model.init(jax.random.key(self.seed), example)["params"]
        checkpoints = self.folder.checkpoints(self.seed, stage.name)
        with self.progress.task(self.seed, stage.name, trainer.steps) as tick:
            params, state, seconds = trainer.train(
                self.seed,
                start,
                teacher if stage.distilled else None,
                checkpoints,
                tick,
            )
        tree = stage.compressor.finalize(params, state)
        jc.save(file, tree)
        record = self._record(stage, tree, evaluator, seconds)
        self.folder.finish(self.seed, record)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return record, tree

    def reload(self, last: Stage, evaluator: Evaluator) -> report.Record:
        """Evaluate the file of the last stage as a stranger would get it."""
        record = self.folder.record(self.seed, PACKED)
        if record is None:
            file = self.folder.artifact(self.seed, PACKED)
            jc.save(file, _load(self.folder.artifact(self.seed, last.name)))
            stage = dataclasses.replace(last, name=PACKED)
            record = self._record(stage, _load(file), evaluator, None)
            self.folder.finish(self.seed, record)
        return record

    def _record(
        self,
        stage: Stage,
        tree: Any,
        evaluator: Evaluator,
        seconds: float | None,
    ) -> report.Record:
        view = jc.dense(tree)
        test = self.dataset.test
        return report.Record(
            name=stage.name,
            provenance=report.provenance(stage.transforms),
            accuracy=report.Accuracy([evaluator.accuracy(view, test)], [self.seed]),
            size=report.size(
                self.folder.artifact(self.seed, stage.name), expected=tree
            ),
            latency=evaluator.latency(tree, test),
            training_seconds=seconds,
            simulated=bool(stage.transforms),
        )


def _load(file: Any) -> Any:
    try:
        return jc.load(file)
    except jc.ArtifactError as error:
        raise RunError(
            f"{error}\nMove that file away; --resume then makes it again."
        ) from error


def _control(config: Config, dataset: Dataset, target: report.Size | None) -> Trainer:
    """A dense network as small as the file: what compression has to beat.

    Or the smallest of its kind, where even that is larger; the table shows its bytes.
    """
    assert target is not None
    model = MODELS[config.model](classes=dataset.num_classes)
    for model in _narrower(config, dataset):
        shapes = jax.eval_shape(model.init, jax.random.key(0), dataset.train.x[:1])
        if 4 * sum(x.size for x in jax.tree.leaves(shapes)) <= target.file_bytes:
            break
    epochs = config.dense_epochs + config.epochs
    stage = Stage(CONTROL, jc.identity(), epochs, from_dense=False)
    return Trainer(config, dataset, model, stage)


def _narrower(config: Config, dataset: Dataset) -> Iterator[nn.Module]:
    """The network of the study with ever smaller widths.

    The first layer shrinks to one unit before the others fall below 16, then below 4:
    most weights are in the first, and two units between layers would be no network.
    """
    full: Any = MODELS[config.model](classes=dataset.num_classes)
    for floor in (16, 4, 1):
        for shrink in np.linspace(1, 0, 400, endpoint=False):
            first, *rest = (max(1, round(shrink * width)) for width in full.widths)
            narrow = (first, *(max(floor, width) for width in rest))
            yield MODELS[config.model](classes=dataset.num_classes, widths=narrow)
