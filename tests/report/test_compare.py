# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from recorded import WHERE, accurate

from jaxcompress import report
from jaxcompress.report import compare

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.05])
def test_p_values_are_those_of_welch(gap):
    draw = np.random.default_rng(0)
    x, y = draw.normal(0.8, 0.02, 5), draw.normal(0.8 + gap, 0.005, 3)
    verdict = compare(accurate("x", x), accurate("y", y))
    wanted = stats.ttest_ind(x, y, equal_var=False).pvalue
    assert verdict.p_value == pytest.approx(wanted)
    assert verdict.difference == pytest.approx(y.mean() - x.mean())
    assert (verdict.better is None) == (wanted >= 0.05)


def test_the_verdict_follows_the_direction_of_the_metric():
    low, high = [0.50, 0.51, 0.52], [0.90, 0.91, 0.92]
    assert compare(accurate("a", low), accurate("b", high)).better == "b"
    assert compare(accurate("b", high), accurate("a", low)).better == "b"
    a, b = (
        dataclasses.replace(
            accurate(name, v), metrics=(report.loss(v, range(3), split="test"),)
        )
        for name, v in [("a", low), ("b", high)]
    )
    assert compare(a, b, "loss").better == "a"


def test_the_seeds_asked_for_decide_four_times_in_five():
    verdict = compare(
        accurate("a", [0.80, 0.82, 0.84]), accurate("b", [0.82, 0.84, 0.86])
    )
    n = verdict.seeds_needed
    assert verdict.better is None and n is not None
    assert f"about {n} seeds for each" in str(verdict) and "Welch" in str(verdict)
    draw = np.random.default_rng(0)

    def share(n):
        x, y = draw.normal(0.82, 0.02, (4000, n)), draw.normal(0.84, 0.02, (4000, n))
        return (stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05).mean()

    assert 0.77 < share(n) < 0.85
    assert share(n - 4) < 0.77


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ([0.8], [0.9, 0.91], "one seed shows no spread"),
        ([0.8, 0.8], [0.9, 0.9], "the values of all seeds are equal"),
        ([0.8, 0.9], [0.9, 0.8], "no number of seeds would decide it"),
    ],
)
def test_a_verdict_is_withheld(first, second, why):
    verdict = compare(accurate("a", first), accurate("b", second))
    assert verdict.better is None and verdict.seeds_needed is None
    assert why in verdict.reason and str(verdict).startswith("no verdict: ")


def test_splits_and_units_are_not_mixed():
    test, other = (
        accurate("a", [], metrics=[report.accuracy([0.5], [0], split=split)])
        for split in ("test", "validation")
    )
    with pytest.raises(
        ValueError, match="must have the same split, got 'test' and 'va"
    ):
        compare(test, other)
    with pytest.raises(KeyError, match="one metric 'loss'"):
        compare(test, test, "loss")


def test_other_devices_and_versions_are_told():
    elsewhere = dataclasses.replace(WHERE, device="gpu: x", versions={"jax": "2"})
    other = dataclasses.replace(accurate("b", [0.5, 0.6]), provenance=elsewhere)
    verdict = compare(accurate("a", [0.5, 0.6]), other)
    assert verdict.notes == (
        "devices differ: cpu: cpu and gpu: x",
        "versions differ: jax",
    )
    assert "note: devices differ" in str(verdict)
