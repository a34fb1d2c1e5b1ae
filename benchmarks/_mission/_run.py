# SPDX-License-Identifier: Apache-2.0
"""All networks of all seeds, with finished records kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from jaxcompress import report
from research import data

from ._measure import Measured
from ._recipes import Recipes
from ._settings import Settings


def records(
    settings: Settings, seeds: Sequence[int], folder: Path, console: Console
) -> list[report.Record]:
    """Return the records of all networks and seeds.

    A network whose records are in the folder, of the same settings and commit, is not
    trained again.

    Args:
      settings: of the run.
      seeds: of everything that is random.
      folder: where records are kept.
      console: shows the progress.
    """
    here = report.provenance(repository=Path(__file__).parent)
    text = repr((settings, here.commit, sorted(here.versions.items())))
    folder = folder / f"records-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    dataset, found = data.load(settings.data), []
    columns = ("{task.description:<64}", BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as bar,
        _programs_on_disk(),
    ):
        task = bar.add_task("starting", total=len(seeds) * len(settings.networks))
        for seed in seeds:
            for name in settings.networks:
                file = folder / f"{seed}-{name}.json"
                if not file.exists():
                    where = f"seed {seed}, {name}"
                    measured = Measured(
                        dataset, seed, here, settings.rounds, settings.runs
                    )

                    def advance(what: str, where: str = where) -> None:
                        bar.update(task, description=f"{where}: {what}")

                    made = Recipes(name, measured, settings).records(advance)
                    report.save_records(file, *made)
                found += report.load_records(file)
                bar.advance(task)
    return found


@contextlib.contextmanager
def _programs_on_disk() -> Iterator[None]:
    """Compile equal programs of several seeds once."""
    with tempfile.TemporaryDirectory() as programs:
        options = {
            "jax_compilation_cache_dir": programs,
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        before = {name: getattr(jax.config, name) for name in options}
        if before["jax_compilation_cache_dir"]:  # the caller's own
            yield
            return
        try:
            for name, value in options.items():
                jax.config.update(name, value)
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
