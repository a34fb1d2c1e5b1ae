# SPDX-License-Identifier: Apache-2.0
"""Scales that merge what loops show them in one call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.formats import Int
from jaxcompress.quantize.scales import (
    absmax,
    as_stateful,
    held,
    lsq,
    lsq_plus,
    moving_average,
    pact,
)

FMT = Int(8, symmetric=False)
SCALES = {
    "moving average": moving_average(0.5),
    "held": held(absmax),
    "lsq": lsq(),
    "lsq+": lsq_plus(),
    "pact": pact(),
}
X = jnp.array([[0.1, -2.0], [3.3, 0.0]])


def seen(kept, state, *arrays):
    merged = kept.call.start(state)
    for x in arrays:
        merged = kept.call.add(merged, state, x, FMT)
    return kept.call.end(state, merged)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", SCALES)
def test_a_call_with_one_array_observes_it(name):
    kept = as_stateful(SCALES[name])
    fresh = kept.init((), FMT)
    equal(seen(kept, fresh), fresh)
    once = seen(kept, fresh, X)
    equal(once, kept.observe(fresh, X, FMT))
    equal(seen(kept, once, 5 * X), kept.observe(once, 5 * X, FMT))


@pytest.mark.parametrize("name", SCALES)
def test_nothing_hides_behind_an_empty_array(name):
    kept = as_stateful(SCALES[name])
    fresh = kept.init((), FMT)
    visits = [0 * X, X, 0.1 * X]
    for order in (visits, visits[::-1]):
        equal(seen(kept, fresh, *order), kept.observe(fresh, X, FMT))


@pytest.mark.parametrize("name", SCALES)
def test_a_nan_in_any_trip_stays_visible(name):
    kept = as_stateful(SCALES[name])
    broken = seen(kept, kept.init((), FMT), X, X * jnp.nan, 9 * X)
    alone = kept.observe(kept.init((), FMT), X * jnp.nan, FMT)
    equal(broken, alone)
