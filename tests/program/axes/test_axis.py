# SPDX-License-Identifier: Apache-2.0
"""Axes that are unified and refined, and the masks of their parts."""

import numpy as np
import pytest

from jaxcompress.program.axes import Axis, Conflict, Kept, atoms, indices
from jaxcompress.program.axes._axis import (
    factors,
    find,
    freeze,
    pieces,
    product,
    regroup,
    sequence,
    split_product,
    split_sequence,
    unify,
)


def sizes(axes):
    return [axis.size for axis in axes]


def reasons(axis):
    return {reason for atom in atoms(axis) for reason in atom.reasons}


def test_unified_axes_are_one_and_share_their_reasons():
    a, b, c = Axis(6), Axis(6), Axis(6)
    freeze(a, "first")
    unify(a, b, "unused")
    unify(b, c, "unused")
    freeze(c, "last")
    assert find(a) is find(b) is find(c)
    assert list(find(a).reasons) == ["first", "last"]


def test_a_refinement_holds_for_what_was_unified_before():
    a, b = Axis(6), Axis(6)
    freeze(a, "reason")
    unify(a, b, "unused")
    split_product(a, 3)
    assert sizes(factors(b)) == [2, 3]
    assert reasons(b) == {"reason"}


@pytest.mark.parametrize(
    "left, right, parts",
    [
        ([2, 6], [4, 3], [2, 2, 3]),
        ([12], [3, 4], [3, 4]),
        ([2, 6], [2, 2, 3], [2, 2, 3]),
    ],
)
def test_products_are_cut_where_the_other_is_cut(left, right, parts):
    a, b = product([*map(Axis, left)]), product([*map(Axis, right)])
    unify(a, b, "unused")
    assert sizes(factors(a)) == sizes(factors(b)) == parts
    assert [find(x) for x in factors(a)] == [find(x) for x in factors(b)]


def test_sequences_are_cut_where_the_other_is_cut():
    a, b = sequence([Axis(4), Axis(2)]), sequence([Axis(2), Axis(4)])
    unify(a, b, "unused")
    assert sizes(pieces(a)) == sizes(pieces(b)) == [2, 2, 2]


def test_what_does_not_fit_is_frozen_on_both_sides():
    a, b = product([Axis(2), Axis(3)]), product([Axis(3), Axis(2)])
    unify(a, b, "misfit")
    assert reasons(a) == reasons(b) == {"misfit"}
    c, d = Axis(2), Axis(3)
    unify(c, d, "sizes")
    assert reasons(c) == reasons(d) == {"sizes"}


def test_a_sequence_of_products_with_one_minor_axis_is_a_product():
    a = sequence([Axis(2), Axis(4)])
    cut = split_product(a, 2)
    assert cut is not None
    assert sizes(factors(a)) == [3, 2]
    assert sizes(pieces(cut[0])) == [1, 2]
    assert split_product(sequence([Axis(3), Axis(3)]), 2) is None


def test_a_product_is_cut_along_its_outer_factor():
    a = product([Axis(3), Axis(2)])
    cut = split_sequence(a, 2)
    assert cut is not None
    assert sizes(cut) == [2, 4]
    assert split_sequence(product([Axis(3), Axis(2)]), 3) is None


@pytest.mark.parametrize(
    "before, after, parts",
    [
        ((2, 6), (4, 3), [[2, 2], [3]]),
        ((12,), (3, 1, 4), [[3], [], [4]]),
        ((2, 3, 4), (24,), [[2, 3, 4]]),
        ((1, 5), (5, 1), [[5], []]),
    ],
)
def test_a_reshape_regroups_factors(before, after, parts):
    old = [Axis(n) for n in before]
    new = regroup(old, after, "uneven")
    assert sizes(new) == list(after)
    assert [sizes(factors(axis)) for axis in new] == parts
    assert not any(map(reasons, (*old, *new)))


def test_what_fits_at_the_end_of_an_uneven_reshape_stays_free():
    old = [Axis(2), Axis(3), Axis(5)]
    new = regroup(old, (3, 2, 5), "uneven")
    assert [reasons(axis) for axis in new] == [{"uneven"}, {"uneven"}, set()]
    assert find(new[2]) is find(old[2])
    assert reasons(old[0]) == reasons(old[1]) == {"uneven"}


@pytest.mark.parametrize("before, after", [((2, 3), (3, 2)), ((4, 9), (6, 6))])
def test_an_uneven_reshape_freezes(before, after):
    old = [Axis(n) for n in before]
    new = regroup(old, after, "uneven")
    assert sizes(new) == list(after)
    assert all(reasons(axis) == {"uneven"} for axis in (*old, *new))


def test_axes_of_size_zero_and_one_have_no_parts():
    assert product([Axis(1), Axis(1)]).size == 1
    assert sequence([Axis(0), Axis(0)]).size == 0
    assert factors(Axis(1)) == []
    kept = Kept()
    assert kept.mask(product([])).tolist() == [True]
    assert kept.mask(sequence([])).tolist() == []
    assert sizes(regroup([Axis(0), Axis(4)], (4, 0), "empty")) == [4, 0]


def nested():
    inner = product([Axis(2), Axis(3)])
    return sequence([inner, Axis(2), product([Axis(2), inner])])


def test_masks_agree_with_indices():
    axis, rng, kept = nested(), np.random.default_rng(0), Kept()
    for atom in dict.fromkeys(atoms(axis)):
        kept.set(atom, rng.random(atom.size) < 0.6, lambda atom: None)
    wanted = np.ones(axis.size, bool)
    for atom, index in indices(axis):
        wanted &= (index < 0) | kept.mask(atom)[index]
    np.testing.assert_array_equal(kept.mask(axis), wanted)
    assert kept.size(axis) == wanted.sum()
    again = Kept()
    if wanted.reshape(-1)[:6].any():
        again.set(axis, kept.mask(axis), lambda atom: None)
        np.testing.assert_array_equal(again.mask(axis), wanted)


def test_masks_that_are_no_products_are_refused():
    axis, kept = product([Axis(2), Axis(2)]), Kept()
    with pytest.raises(Conflict, match="reshapes this axis to 2x2"):
        kept.set(axis, np.array([True, False, False, True]), lambda atom: None)


def test_two_masks_of_one_axis_conflict():
    atom, kept = Axis(2), Kept()
    axis = sequence([atom, atom])
    with pytest.raises(Conflict, match="two masks of coupled axes differ"):
        kept.set(axis, np.array([True, False, False, True]), lambda atom: None)


def test_only_axes_that_lose_indices_are_refused():
    refused, kept = [], Kept()
    a, b = Axis(2), Axis(3)
    kept.set(
        sequence([a, b]), np.array([True, True, True, False, True]), refused.append
    )
    assert refused == [b]
    assert kept.is_whole(a)
    assert not kept.is_whole(b)
