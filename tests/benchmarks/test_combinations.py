# SPDX-License-Identifier: Apache-2.0
"""A handful of drawn combinations hold, and one that does not is found out."""

import dataclasses
import json

import jax
import pytest
from jax.core import Tracer

import jaxcompress as jc
from benchmarks import combinations
from benchmarks.combinations import COMPRESSORS, CONTAINERS, DTYPES, MESHES, TRANSFORMS


@pytest.mark.slow
@pytest.mark.parametrize("each", combinations.drawn(6, seed=0), ids=str)
def test_a_drawn_combination_holds_or_is_refused(each):
    assert combinations.check(each) in ("held", "refused")


def test_every_value_of_every_factor_is_drawn_and_equally_often():
    draws = [dataclasses.astuple(each) for each in combinations.drawn(1680, seed=3)]
    factors = (COMPRESSORS, DTYPES, CONTAINERS, MESHES, TRANSFORMS)
    for column, values in zip(zip(*draws, strict=True), factors, strict=True):
        counts = {value: column.count(value) for value in values}
        if values is not DTYPES:  # of which some compressors take one
            assert set(counts.values()) == {1680 // len(values)}
    assert combinations.drawn(9, seed=3) == combinations.drawn(1680, seed=3)[:9]


def test_only_what_must_be_refused_counts_as_refused(monkeypatch):
    draw = combinations.Draw("int8", "float32", "unnamed", "none", "eager")
    assert combinations.check(draw) == "refused"
    named = dataclasses.replace(draw, container="tuples")
    assert combinations.check(named) == "held"
    with pytest.raises(AssertionError, match="did not refuse"):
        monkeypatch.setattr(combinations, "REFUSED", {"tuples": "selected none"})
        combinations.check(named)
    with pytest.raises(ValueError, match="is_weight selected none of 4 leaves"):
        combinations.check(draw)


def halves_in_jit():
    """Breaks a law: the view is another one where it is traced."""

    def apply(params, state):
        del state
        traced = isinstance(jax.tree.leaves(params)[0], Tracer)
        return jax.tree.map(lambda p: p / 2, params) if traced else params

    return jc.Compressor(init=lambda params: (), apply=apply)


def test_a_compressor_that_breaks_a_law_is_found_out(monkeypatch, capsys):
    made = {"halves": lambda leaves: halves_in_jit()}
    monkeypatch.setattr(combinations, "COMPRESSORS", made)
    monkeypatch.setattr(
        combinations, "TRANSFORMS", {"jit": combinations.TRANSFORMS["jit"]}
    )
    with pytest.raises(SystemExit) as stopped:
        combinations.main(["--rounds", "2", "--output", "-"])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert "jit and eager differ by up to" in printed.err
    known = json.loads(printed.out.splitlines()[-1])
    outcomes = {row["name"]: row["outcomes"] for row in known["rows"]}
    assert outcomes["all"] == outcomes["halves"] == {"broken": 2}
