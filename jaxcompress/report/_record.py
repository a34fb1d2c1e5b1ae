# SPDX-License-Identifier: Apache-2.0
"""Records: the measurements of one model, its cost, and where the numbers come from."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._atomic import write_bytes
from ..program import Count
from ._energy import Energy
from ._energy_model import EnergyModel
from ._json import decode, encode
from ._latency import Latency
from ._memory import Memory
from ._metric import Metric
from ._provenance import Provenance
from ._size import Size

_VERSION = 1
_FORMAT = "jaxcompress record"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """All measurements of one model; prints as a list. What was not measured is None.

    Law: ``Record.from_json(record.to_json()) == record``.

    Attributes:
      name: name of the model.
      provenance: where the numbers come from.
      metrics: what the model is good at; one of each name and split.
      size: size of the model file.
      batch: examples in one call.
      count: operations of one call, from ``jc.count``.
      latency: latency of one call.
      memory: peak memory of one call.
      energy: measured energy of one call.
      energy_model: energy of one call by an operation model.
      training_seconds: wall-clock time of training, including compression.
      simulated: True if the model only simulates compression with masks or rounded
        floats, so that no speed-up is expected.

    Raises:
      ValueError: if there are two metrics of the same name and split.
    """

    name: str
    provenance: Provenance
    metrics: Sequence[Metric] = ()
    size: Size | None = None
    batch: int | None = None
    count: Count | None = None
    latency: Latency | None = None
    memory: Memory | None = None
    energy: Energy = Energy()
    energy_model: EnergyModel | None = None
    training_seconds: float | None = None
    simulated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        keys = [(metric.name, metric.split) for metric in self.metrics]
        if len(set(keys)) < len(keys):
            raise ValueError(
                "a record has one metric of each name and split, got "
                f"{', '.join(f'{name} ({split})' for name, split in keys)}. Put all seeds "
                "in one metric."
            )

    def metric(self, name: str, split: str | None = None) -> Metric:
        """Return a metric.

        Args:
          name: its name.
          split: its split; None if there is only one.

        Raises:
          KeyError: if there is none, or more than one.
        """
        found = [
            metric
            for metric in self.metrics
            if metric.name == name and split in (None, metric.split)
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{m.name} ({m.split})" for m in self.metrics) or "none"
        raise KeyError(
            f"{self.name!r} must have one metric {name!r}"
            f"{'' if split is None else f' of the split {split!r}'}, has {len(found)}; "
            f"its metrics: {known}."
        )

    def __str__(self) -> str:
        parts: list[tuple[str, Any]] = [
            (metric.name, f"{metric.split}: {metric.summary()}")
            for metric in self.metrics
        ]
        if self.size is not None:
            parts.append(("file", f"{self.size.file_bytes:,} bytes"))
        if self.count is not None:
            parts.append(("operations", f"{self.count.macs:,} multiply-accumulates"))
        parts += [("latency", self.latency), ("memory", self.memory)]
        parts.append(("energy", self.energy))
        if self.energy_model is not None:
            parts.append(("model, no gain", self.energy_model.no_gain))
            parts.append(("model, full gain", self.energy_model.full_gain))
        if self.simulated:
            parts.append(("note", "simulated, no speed-up expected"))
        rows = [(name, str(part)) for name, part in parts if part is not None]
        width = max(len(name) for name, _ in rows)
        return "\n".join([self.name, *(f"  {n:<{width}}  {text}" for n, text in rows)])

    def to_json(self) -> str:
        """Serialize to JSON. Equal records give equal text.

        Raises:
          ValueError: if a number is not finite.
        """
        content = encode(self, Record, "record")
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "crc32": _checksum(content),
            "record": content,
        }
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Parse a record that ``to_json`` wrote.

        Raises:
          ValueError: if the text is not a record, is damaged, or is from another version.
        """
        return _parse(_loads(text))


def save_records(path: str | os.PathLike[str], *records: Record) -> None:
    """Write records to a JSON file, which is complete or absent.

    Args:
      path: path of the file; an existing file is replaced.
      *records: the records.

    Raises:
      ValueError: if there are none, or a number is not finite.
      OSError: if the file cannot be written.
    """
    if not records:
        raise ValueError("records must not be empty: there are no records to save.")
    texts = [record.to_json() for record in records]
    text = texts[0] if len(texts) == 1 else f"[\n{','.join(texts)}\n]"
    write_bytes(Path(path), f"{text}\n".encode())


def load_records(path: str | os.PathLike[str]) -> tuple[Record, ...]:
    """Read the records of a JSON file.

    Args:
      path: a file with one record, or a list of them.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, as for ``Record.from_json``.
    """
    path = Path(path)
    try:
        document = _loads(path.read_text(encoding="utf-8"))
        documents = document if isinstance(document, list) else [document]
        if not documents:
            raise ValueError("it is an empty list.")
        return tuple(map(_parse, documents))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


def check_records(records: Sequence[Record]) -> None:
    """Refuse to show no records.

    Raises:
      ValueError: if there are none.
    """
    if not records:
        raise ValueError("records must not be empty: there are no records to show.")


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"not a jaxcompress record, or cut off: it is not JSON ({error})."
        ) from error


def _parse(document: Any) -> Record:
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(
            "not a jaxcompress record: Record.to_json and save_records write them."
        )
    version, content = document.get("version"), document.get("record")
    if version != _VERSION:
        raise ValueError(
            f"the record's version is {version!r} (known: {_VERSION}); another version of "
            "jaxcompress wrote it."
        )
    try:
        damaged = document.get("crc32") != _checksum(content)
    except ValueError as error:
        raise ValueError(
            f"the record has numbers that are not finite: {error}."
        ) from error
    if damaged:
        raise ValueError(
            "the record's checksum is wrong: it was damaged or edited. Measure again."
        )
    return decode(content, Record, "record")


def _checksum(content: Any) -> int:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return zlib.crc32(text.encode())
