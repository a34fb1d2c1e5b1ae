# SPDX-License-Identifier: Apache-2.0
"""A state is read only by what it was made for, traced or not, stored or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put

import jaxcompress as jc
from jaxcompress import prune, quantize
from jaxcompress.formats import E2M1, E4M3, NF4, Int
from jaxcompress.quantize import scales

PARAMS = {"kernel": normal(16, 4)}
STATS = {"kernel": jc.program.statistics.Gram(put(99, jnp.uint32), put(np.eye(16)))}
GRADS = {"grads": PARAMS}


def ints(scale=None, rounding=None):
    options = {} if scale is None else {"scale": scale}
    return lambda bits: jc.weight_quantization(bits=bits, rounding=rounding, **options)


def averaged(score):
    return prune.prune(0.5, score=prune.scores.averaged(score))


PAIRS = {
    "lsq": (*map(ints(scales.lsq()), (4, 8)), {}),
    "lsq_plus": (
        *(jc.weight_quantization(bits=b, symmetric=False, scale=scales.lsq_plus())
          for b in (4, 8)),
        {},
    ),
    "held": (*map(ints(scales.held(scales.absmax)), (4, 8)), {}),
    "searched": (*map(ints(scales.mse()), (4, 8)), {}),
    "two searches": (ints(scales.mse())(4), ints(scales.entropy())(4), {}),
    "learned rounding": (*map(ints(None, quantize.rounding.learned()), (4, 8)), {}),
    "floats": (
        *(jc.weight_quantization(fmt=f, scale=scales.lsq()) for f in (E2M1, E4M3)),
        {},
    ),
    "tables": (
        *(jc.weight_quantization(fmt=f, scale=scales.lsq()) for f in (NF4, Int(4))),
        {},
    ),
    "scale and bound": (
        jc.weight_quantization(bits=4, scale=scales.lsq()),
        jc.weight_quantization(bits=4, scale=scales.pact()),
        {},
    ),
    "gptq": (*(quantize.gptq_quantization(bits=b) for b in (4, 8)), {"stats": STATS}),
    "zeros": (*(jc.weight_sharing(4, keep_zero=z) for z in (False, True)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_state_of_another_compressor_is_refused(name):
    theirs, ours, extras = PAIRS[name]
    state = theirs.init(PARAMS)
    ours.apply(PARAMS, ours.init(PARAMS))
    for run in (ours.apply, ours.finalize):
        with pytest.raises(ValueError, match="was made for '.*but is read as '"):
            run(PARAMS, state)
        # Under jit too, where values are not known.
        with pytest.raises(ValueError, match="was made for"):
            jax.eval_shape(run, PARAMS, state)
    if name != "learned rounding":  # its update only counts
        with pytest.raises(ValueError, match="was made for"):
            ours.update(PARAMS, state, **extras)


def test_scores_of_another_method_are_refused():
    theirs, ours = (
        averaged(prune.scores.saliency),
        prune.prune(0.5, score=prune.scores.movement()),
    )
    with pytest.raises(ValueError, match="'averaged_saliency'.*'movement'"):
        ours.update(PARAMS, theirs.init(PARAMS), **GRADS)


@pytest.mark.parametrize("name", ["lsq", "learned rounding", "gptq", "zeros"])
def test_a_checkpoint_of_another_compressor_is_refused(tmp_path, name):
    theirs, ours, _ = PAIRS[name]
    jc.save_checkpoint(tmp_path, 0, theirs.init(PARAMS))
    with pytest.raises(jc.CheckpointError, match=r"another model(.|\n)*origin"):
        jc.restore_checkpoint(tmp_path, ours.init(PARAMS))


def test_ranges_of_activations_serve_every_format_but_steps_do_not():
    def fn(params, x):
        return x @ params["kernel"]

    def quantized(bits, scale):
        return jc.quantize_activations(
            fn, jc.program.ActivationQuantizer(Int(bits), scale)
        )

    x = jnp.ones((2, 16))
    for scale in (scales.minmax(), scales.moving_average(), scales.mse()):
        _, ranges = quantized(4, scale).calibrate(
            PARAMS, quantized(4, scale).init(PARAMS, x), x
        )
        out, _ = quantized(8, scale).frozen(PARAMS, ranges, x)
        assert jnp.isfinite(out).all()
    four, eight = (quantized(bits, scales.lsq()) for bits in (4, 8))
    _, ranges = four.calibrate(PARAMS, four.init(PARAMS, x), x)
    with pytest.raises(ValueError, match="'lsq-int4', but is read as 'lsq-int8'"):
        eight.frozen(PARAMS, ranges, x)


def test_masks_of_another_sparsity_are_welcome():
    state = jc.magnitude_pruning(0.5).init(PARAMS)
    view = jc.magnitude_pruning(0.75).apply(PARAMS, state)
    assert np.count_nonzero(view["kernel"]) == 32


def test_one_program_for_all_bits_reads_states_of_each():
    def error(bits):
        c = quantize.quantize(
            Int(bits), granularity=jc.PerChannel(), scale=scales.lsq()
        )
        return jnp.sum(c.apply(PARAMS, c.init(PARAMS))["kernel"])

    traced = jax.vmap(error)(jnp.array([2, 8]))
    np.testing.assert_allclose(traced, [error(2), error(8)], rtol=1e-5)
