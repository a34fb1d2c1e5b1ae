# SPDX-License-Identifier: Apache-2.0
"""A study as a list of jobs, each of which makes records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from ._ledger import Ledger
from ._progress import Progress

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Job(Generic[Record]):
    """A part of a study that is done as a whole or not at all.

    Attributes:
      name: what is shown, and what the records are stored under; no other job has it.
      make: trains and measures. What it shares with other jobs it should make when it is
        first needed: a job whose records are stored is not run.
      files: what it leaves behind; if one is missing, it runs again.
    """

    name: str
    make: Callable[[], Sequence[Record]]
    files: Sequence[Path] = ()


@dataclasses.dataclass(frozen=True)
class Codec(Generic[Record]):
    """How records become JSON.

    Attributes:
      encode: record to what JSON can hold.
      decode: the inverse.
    """

    encode: Callable[[Record], Any]
    decode: Callable[[Any], Record]


def fields_of(kind: type[Record]) -> Codec[Record]:
    """Records that are dataclasses, field by field."""
    return Codec(dataclasses.asdict, lambda fields: kind(**fields))  # pyright: ignore[reportArgumentType]


def run_jobs(
    jobs: Iterable[Job[Record]],
    records: list[Record],
    codec: Codec[Record],
    ledger: Ledger,
    progress: Progress,
) -> None:
    """Run the jobs that are not recorded, in order, and append the records of all."""
    for job in jobs:
        progress.start(job.name)
        stored = ledger.result(
            job.name,
            lambda job=job: [codec.encode(record) for record in job.make()],
            files=job.files,
        )
        # As they are read back, whether they were or not.
        records += [codec.decode(part) for part in json.loads(json.dumps(stored))]
        progress.done()
