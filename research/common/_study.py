# SPDX-License-Identifier: Apache-2.0
"""A study: what it is called, its settings, and what it runs or chooses."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..data import Dataset, Split
from ._cli import DATA, Options, main
from ._jobs import Job, Record
from ._search import Search
from ._session import Session
from ._verdicts import Claim


def runner(
    record: type[Record],
    jobs: Callable[[Any, Dataset, Sequence[Record]], Iterable[Job[Record]]],
    *,
    summary: Callable[[Sequence[Record]], Mapping[str, Any]],
    tables: Callable[[Any, int, Sequence[Record]], Any],
    draw: Callable[[Sequence[Record], Path], object],
    claims: Callable[[Sequence[Record]], Iterable[Claim]],
) -> Callable[[Any, Session], None]:
    """``run`` of a study that has records of one kind: runs all jobs, writes the results.

    Args:
      record: the dataclass.
      jobs: ``(settings, data, records so far) -> jobs``.
      summary: records as JSON can hold them.
      tables: ``(settings, number of test examples, records)`` as ``Session.finish``
        takes them.
      draw: draws the picture into a file.
      claims: what of the records is compared with a trivial way.
    """

    def run(config: Any, session: Session) -> None:
        records = session.run(record, partial(jobs, config, session.data))
        shown = tables(config, len(session.data.test), records)
        session.finish(summary(records), shown, partial(draw, records), claims(records))

    return run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A command, ``python -m research.<name>``.

    Attributes:
      name: of its folder.
      about: what it does, for ``--help``.
      config: ``(data, seeds=, quick=, **options of its own) -> settings``, a dataclass.
      run: ``(settings, session)``: runs the jobs and writes the results.
      choose: ``(settings, data, search)``: returns what it chose. The data have no test
        split. None if there is nothing to choose.
      setting: name of the setting that is chosen.
      shown: what is printed of a choice, if not all of it.
      data: names of the data sets that it can use, the default first.
      options: adds options of its own to the parser.
      free: names of settings that may change when a run is continued.
    """

    name: str
    about: str
    config: Callable[..., Any]
    run: Callable[[Any, Session], None]
    choose: Callable[[Any, Dataset, Search], Mapping[str, Any]] | None = None
    setting: str = ""
    shown: Callable[[Mapping[str, Any]], Any] | None = None
    data: Sequence[str] = DATA
    options: Callable[[argparse.ArgumentParser], None] | None = None
    free: Collection[str] = ()

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parse arguments, and run or choose; returns the exit status."""
        return main(
            self.name,
            self.about,
            self._start,
            argv,
            data=self.data,
            chooses=self.choose is not None,
            add_options=self.options,
        )

    def _start(self, options: Options) -> None:
        config = self.config(
            options.data, seeds=options.seeds, quick=options.quick, **options.settings
        )
        session = Session(options, config, free=self.free)
        if self.choose is None or not options.choose:
            self.run(config, session)
            return
        train = session.data.train
        blind = dataclasses.replace(session.data, test=Split(train.x[:0], train.y[:0]))
        choose = partial(self.choose, config, blind)
        session.choose(choose, setting=self.setting, shown=self.shown)
