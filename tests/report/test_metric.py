# SPDX-License-Identifier: Apache-2.0
import statistics

import pytest

from jaxcompress import report
from jaxcompress.report import Metric


def test_spread_is_the_sample_standard_deviation():
    values = [0.90, 0.92, 0.97]
    metric = report.accuracy(values, [0, 1, 2], split="test")
    assert metric.mean == pytest.approx(sum(values) / 3)
    assert metric.spread == statistics.stdev(values)
    assert report.accuracy([0.9], [0], split="test").spread is None


def test_metrics_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="got 2 values and 1 seeds"):
        report.accuracy([0.9, 0.8], [0], split="test")
    with pytest.raises(ValueError, match="Divide percentages by 100"):
        report.accuracy([88.1], [0], split="test")
    with pytest.raises(ValueError, match="every seed must occur once"):
        report.loss([1.0, 1.0], [3, 3], split="test")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="'perplexity' must be finite"):
            report.perplexity([value], [0], split="test")
    with pytest.raises(TypeError, match="seeds must be a whole number"):
        report.accuracy([0.5], [0.5], split="test")  # pyright: ignore[reportArgumentType]


def test_kinds_know_their_direction_and_unit():
    def kind(made):
        return made.higher_is_better, made.unit

    assert kind(report.accuracy([0.5], [0], split="a")) == (True, "fraction")
    assert kind(report.loss([0.5], [0], split="a")) == (False, "nats")
    assert kind(report.perplexity([0.5], [0], split="a")) == (False, "")
    assert kind(report.bits_per_character([0.5], [0], split="a")) == (False, "bits")


def test_values_are_shown_with_their_unit():
    accuracy = report.accuracy([0.90, 0.92], [0, 1], split="test")
    assert accuracy.summary() == "91.00 ± 1.41 %"
    loss = report.loss([0.301234, 0.302345], [0, 1], split="test")
    assert loss.summary() == "0.30179 ± 0.00079 nats"
    assert (
        report.loss([1e9, 3e9], [0, 1], split="a").summary() == "2e+09 ± 1.4e+09 nats"
    )
    assert accuracy.show_difference(-0.012) == "-1.20 points"
    own = Metric(
        name="BLEU",
        values=[30],
        seeds=[0],
        split="dev",
        higher_is_better=True,
        unit="pt",
    )
    assert str(own) == "BLEU (dev): 30 pt (1 seed)"
