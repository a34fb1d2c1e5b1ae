# SPDX-License-Identifier: Apache-2.0
"""The same network in qwix: an independent implementation of the same arithmetic.

qwix patches JAX for the whole process, and what it gives depends on what was traced
before it. So it runs in a process of its own: this file, called as a program.
"""

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, operands_only
from jaxcompress.quantize.scales import dynamic, of_range

# qwix lets the range of int8 end at 127.5, so that the extreme rounds into the last code;
# ours ends at 127. A factor of the range, which it takes, makes them the same.
BOUND = 127.5 / 127
OURS = {
    "weight_calibration_method": f"absmax,{BOUND}",
    "act_calibration_method": f"absmax,{BOUND}",
}
SCHEMES = {
    "rows": OURS,
    "tensor": {**OURS, "disable_channelwise_axes": True},
    "zero point": {**OURS, "act_calibration_method": "minmax"},
    "its bound": {},
}


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(32)(x))
        return nn.Dense(5)(hidden), hidden


def network():
    draw = np.random.default_rng(0)
    shapes = {"Dense_0": (16, 32), "Dense_1": (32, 5)}
    params = {
        name: {
            "kernel": jnp.asarray(draw.normal(size=shape) / shape[0] ** 0.5, "float32"),
            "bias": jnp.asarray(draw.normal(size=shape[1]) / 5, "float32"),
        }
        for name, shape in shapes.items()
    }
    return {"params": params}, jnp.asarray(draw.normal(size=(12, 16)), "float32")


def qwix_main(path):
    """Write what qwix makes of the network."""
    import qwix

    variables, x = network()

    def quantized(**options):
        rule = qwix.QtRule(weight_qtype="int8", act_qtype="int8", **options)
        return qwix.quantize_model(Mlp(), qwix.QtProvider([rule]))

    results = {}
    for name, options in SCHEMES.items():
        out, hidden = quantized(**options).apply(variables, x)
        results |= {f"{name}/out": out, f"{name}/hidden": hidden}
    # From products of what the forward pass has rounded, as a straight-through estimator
    # takes them; by default qwix takes the values before they were rounded.
    straight = {"use_original_residuals": False}
    model = quantized(additional_qt_config=straight, **SCHEMES["rows"])
    grads = jax.grad(lambda v: jnp.mean(model.apply(v, x)[0] ** 2))(variables)
    for name, layer in grads["params"].items():
        results |= {f"grad/{name}/{leaf}": grad for leaf, grad in layer.items()}
    for name, layer in variables["params"].items():
        q = qwix.quantize(layer["kernel"], "int8", channelwise_axes=[1])
        results[f"{name}/scale"] = q.scale
    results["rows/scale"] = qwix.quantize(x, "int8", channelwise_axes=[0]).scale
    results["tensor/scale"] = qwix.quantize(x, "int8").scale
    q = qwix.quantize(x, "int8", calibration_method="minmax")
    results |= {"zero point/scale": q.scale, "zero point/zero": q.zero_point}
    np.savez(path, **results)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwix") / "results.npz"
    subprocess.run([sys.executable, __file__, str(path)], check=True)
    return np.load(path)


def ours(ranges, *, symmetric=True, per_channel=True):
    variables, x = network()
    way = operands_only(ActivationQuantizer(Int(8, symmetric), ranges))
    quantized = jc.quantize_activations(Mlp().apply, way)
    granularity = jc.PerChannel() if per_channel else jc.PerTensor()
    weights = jc.weight_quantization(bits=8, granularity=granularity)
    view = weights.apply(variables, weights.init(variables))
    known = quantized.init(view, x)
    return jax.jit(quantized.frozen)(view, known, x)[0]


def test_scales_agree(oracle):
    variables, x = network()
    q = jc.compress(jc.weight_quantization(bits=8), variables)["params"]
    for name in ("Dense_0", "Dense_1"):
        np.testing.assert_allclose(
            q[name]["kernel"].scale, oracle[f"{name}/scale"] * BOUND, rtol=1e-6
        )
    for name, axis in (("rows", -1), ("tensor", None)):
        scale, _ = of_range(*dynamic(axis).read((), x), Int(8))
        np.testing.assert_allclose(scale, oracle[f"{name}/scale"] * BOUND, rtol=1e-6)
    scale, zero_point = of_range(*dynamic().read((), x), Int(8, symmetric=False))
    np.testing.assert_allclose(scale, oracle["zero point/scale"], rtol=1e-6)
    assert zero_point == oracle["zero point/zero"].astype(int) + 128  # ours start at 0


@pytest.mark.parametrize("name", ["rows", "tensor", "zero point"])
def test_outputs_agree_to_rounding(oracle, name):
    got = ours(
        dynamic(-1 if name != "tensor" else None),
        symmetric=name != "zero point",
        per_channel=name != "tensor",
    )
    for mine, theirs in zip(got, ("out", "hidden"), strict=True):
        want = oracle[f"{name}/{theirs}"]
        np.testing.assert_allclose(mine, want, rtol=1e-5, atol=1e-5)


def test_gradients_agree_to_rounding(oracle):
    variables, x = network()
    way = operands_only(ActivationQuantizer(Int(8), dynamic(-1)))
    quantized = jc.quantize_activations(Mlp().apply, way)
    weights = jc.weight_quantization(bits=8)

    def loss(variables):
        view = weights.apply(variables, weights.init(variables))
        (out, _), _ = quantized.train(view, quantized.init(view, x), x)
        return jnp.mean(out**2)

    grads = jax.jit(jax.grad(loss))(variables)["params"]
    for name, layer in grads.items():
        for leaf, grad in layer.items():
            want = oracle[f"grad/{name}/{leaf}"]
            np.testing.assert_allclose(grad, want, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_outputs_differ_by_less_than_a_code_where_the_bounds_differ(oracle):
    out, hidden = ours(dynamic(-1))
    variables, x = network()
    first, second = (variables["params"][f"Dense_{i}"]["kernel"] for i in (0, 1))

    def apart(x, kernel, slack):
        """How far two products may lie apart that round the operands to two grids.

        Both round by at most half a step of the coarser one, and the inputs that they
        round may differ by some slack.
        """
        dx = slack + (jnp.abs(x).max(1, keepdims=True) + slack) / 127
        dw = jnp.abs(kernel).max(0, keepdims=True) / 127
        inputs = jnp.sum(jnp.abs(x) + dx, 1, keepdims=True)
        return dx * jnp.sum(jnp.abs(kernel) + dw, 0, keepdims=True) + inputs * dw

    slack = apart(x, first, 0.0)
    assert (jnp.abs(hidden - oracle["its bound/hidden"]) <= slack).all()
    slack = apart(hidden, second, slack.max(1, keepdims=True))
    difference = jnp.abs(out - oracle["its bound/out"])
    assert (difference <= slack).all() and difference.any()
    exact, _ = Mlp().apply(variables, x)
    for quantized in (out, oracle["its bound/out"]):
        assert jnp.abs(quantized - exact).max() < 0.05 * jnp.abs(exact).max()


if __name__ == "__main__":
    qwix_main(sys.argv[1])
