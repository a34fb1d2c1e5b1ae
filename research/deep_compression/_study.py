# SPDX-License-Identifier: Apache-2.0
"""From settings to a table, a picture and a JSON file, with a clear word if it fails."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

import jaxcompress as jc

from ..data import DatasetCorrupted, DatasetNotFound, load
from ._config import Config
from ._picture import picture
from ._progress import Progress
from ._results import Folder, RunError, default_folder
from ._run import run
from ._stages import compressors, stages
from ._table import summary, table


def study(
    config: Config,
    *,
    out: Path | None,
    resume: bool,
    data_dir: Path | None,
    download: bool,
) -> int:
    """Run it all; returns the exit status."""
    console, errors = Console(), Console(stderr=True)
    path = default_folder(config.data, resume=resume) if out is None else out
    start = time.monotonic()
    try:
        _check(config)
        dataset = load(config.data, data_dir=data_dir, download=download)
        per_epoch = len(dataset.train) // config.batch_size
        if per_epoch == 0:
            raise RunError(
                f"--batch-size {config.batch_size} is more than the {len(dataset.train)} "
                "training examples."
            )
        folder = Folder(path)
        folder.open(config, resume=resume)
        epochs = sum(s.epochs for s in stages(config, per_epoch))
        epochs += config.dense_epochs + config.epochs  # the control
        with Progress(console, config.seeds * epochs * per_epoch) as progress:
            records = run(config, dataset, folder, progress)
    except (
        RunError,
        DatasetNotFound,
        DatasetCorrupted,
        jc.CheckpointError,
        OSError,
        ValueError,
    ) as error:
        errors.print(f"deep_compression: {error}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        again = f"--data {config.data} --out {path} --resume"
        errors.print(
            f"\nStopped. Finished stages and the last checkpoint are in {path}; the same "
            f"command with these options goes on from there:\n  {again}",
            markup=False,
            soft_wrap=True,
        )
        return 130
    seconds = time.monotonic() - start
    results = folder.summarize(summary(config, dataset, records, seconds))
    console.print(table(config, dataset, records))
    image = picture(records, path / "results.png")
    console.print(f"{seconds:.0f} s. Results: {results}, {image}", soft_wrap=True)
    return 0


def _check(config: Config) -> None:
    """Refuse settings that no technique takes before any data is read."""
    compressors(config, steps=100)
    jc.magnitude_pruning(config.sparsity)  # the ramp to it is a schedule, unchecked
