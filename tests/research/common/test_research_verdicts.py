# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from jaxcompress import report
from research import common


@dataclasses.dataclass(frozen=True)
class Network:
    seed: int
    accuracy: float
    bits: float = 0.0


def networks(*values):
    return [Network(seed, value, 10 * value) for seed, value in enumerate(values)]


HIGH, LOW = networks(0.90, 0.91, 0.92), networks(0.80, 0.81, 0.82)
NEAR = networks(0.90, 0.92, 0.94)


def said(row, bar, **options):
    claim = common.Claim("pruned", "a small network", {"": (row, bar)}, **options)
    return " ".join(common.verdicts([claim]).split())


def test_the_better_way_is_named():
    assert said(HIGH, LOW).endswith(
        "- *pruned* is better than *a small network* "
        "(91.00 ± 1.00 against 81.00 ± 1.00 %)."
    )
    assert (
        "- *pruned* is not better than *a small network*: **the trivial way wins** "
        "(81.00 ± 1.00 against 91.00 ± 1.00 %)."
    ) in said(LOW, HIGH)


def test_of_a_loss_less_is_better():
    bits = common.Measure("bits", "bits", higher_is_better=False)
    assert "pruned* is better" in said(LOW, HIGH, measure=bits)
    assert "**the trivial way wins** (9.10 ± 0.10 against 8.10" in said(
        HIGH, LOW, measure=bits
    )


def test_where_spreads_overlap_the_seeds_that_would_decide_are_said():
    # As many as ``compare`` says, which is tested against simulated repetitions.
    here = report.Provenance(versions={}, device="", commit=None)
    a, b = (
        report.Record(
            name=name,
            provenance=here,
            metrics=[
                report.accuracy([r.accuracy for r in group], range(3), split="test")
            ],
        )
        for name, group in (("a", HIGH), ("b", NEAR))
    )
    needed = report.compare(a, b).seeds_needed
    assert needed is not None and needed > 3
    text = said(HIGH, NEAR)
    assert "cannot be told from *a small network* with 3 seeds" in text
    assert f"; about {needed} would decide)" in text
    assert "the trivial way wins" not in text


@pytest.mark.parametrize(
    ("row", "bar", "why"),
    [
        (networks(0.9), networks(0.8), "one seed shows no spread"),
        (networks(0.9, 0.9), networks(0.9, 0.9), "did the seeds change anything?"),
    ],
)
def test_without_spread_there_is_no_verdict(row, bar, why):
    text = said(row, bar)
    assert "cannot be told from *a small network* (" in text and why in text
    assert "1 cannot be told apart" in text


def test_what_was_not_run_is_said():
    text = said(HIGH, [])
    assert "1 have not been run" in text
    assert text.endswith(
        "*pruned* has not been run beside *a small network* (the study has both rows)."
    )


def test_cases_are_grouped_by_outcome_and_counted():
    claim = common.Claim(
        "pruned",
        "a small network",
        {
            "at 50 %": (HIGH, LOW),
            "at 80 %": (LOW, HIGH),
            "at 90 %": (HIGH, LOW),
            "at 95 %": (HIGH, NEAR),
            "at 98 %": (HIGH, []),
        },
    )
    text = common.verdicts([claim])
    assert all(len(line) <= 120 for line in text.splitlines())
    text = " ".join(text.split())
    assert text.startswith(
        "Of 5 comparisons, the clever way is better in 2, the trivial way in 1, 1 cannot "
        "be told apart with these seeds, 1 have not been run."
    )
    each = text.partition("- ")[2].removesuffix(".").split("; ")
    assert each[0].startswith("*pruned* is better than *a small network* at 50 % (")
    assert ", at 90 % (" in each[0]
    assert each[1].startswith("is not better than it: **the trivial way wins** at 80 %")
    assert each[-1] == "has not been run beside it (the study has both rows) at 98 %"
