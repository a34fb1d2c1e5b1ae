# SPDX-License-Identifier: Apache-2.0
"""Conversion to and from qwix's arrays; in a process of its own, which qwix may patch."""

import importlib.util
import subprocess
import sys

import pytest

SCRIPT = """
import warnings
import jax, jax.numpy as jnp, numpy as np
warnings.simplefilter("ignore")
import qwix
import jaxcompress as jc
from jaxcompress.formats import E2M1, E4M3, E5M2, NF4, Int
from jaxcompress.interchange import from_qwix, to_qwix
from jaxcompress.quantize import to_qarray

w = jax.random.normal(jax.random.key(0), (8, 6)).at[0, 0].set(0)
formats = [
    *(Int(b, s) for b in range(2, 9) for s in (True, False)),
    Int(4, narrow=False), NF4, E4M3, E5M2, E2M1,
]
for fmt in formats:
    for shape in ((1, 1), (1, 6), (2, 6)):
        ours = to_qarray(w, fmt, scale_shape=shape)
        theirs = to_qwix(ours)
        assert isinstance(theirs, qwix.QArray)
        np.testing.assert_allclose(qwix.dequantize(theirs), ours.dense(), rtol=1e-6)
        back = from_qwix(theirs)
        np.testing.assert_array_equal(back.dense(), ours.dense())
        assert back.codes.dtype == ours.codes.dtype and back.bits == fmt.bits
packed = jc.pack_codes(to_qarray(w, Int(4)))
np.testing.assert_array_equal(from_qwix(to_qwix(packed)).dense(), packed.dense())
for name in ("int8", "int4", "int3", "nf4", "float8_e4m3fn"):
    for tiled in ({}, {0: 4}):
        theirs = qwix.quantize(w, name, channelwise_axes=(1,), tiled_axes=tiled)
        np.testing.assert_allclose(
            from_qwix(theirs).dense(), qwix.dequantize(theirs), rtol=1e-6
        )
theirs = qwix.quantize(w, "int8", calibration_method="minmax")
np.testing.assert_allclose(from_qwix(theirs).dense(), qwix.dequantize(theirs), rtol=1e-6)
for bad, message in (
    (lambda: to_qwix(to_qarray(w, Int(1))), "leaf must have a format of qwix"),
    (lambda: from_qwix(w), "must be a qwix.QArray, got"),
):
    try:
        bad()
    except TypeError as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)
print("equal")
"""


@pytest.mark.skipif(not importlib.util.find_spec("qwix"), reason="needs qwix")
def test_arrays_go_to_qwix_and_back():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip().endswith("equal"), run.stderr[-3000:]


def test_without_qwix_the_extra_is_named(monkeypatch):
    import jax.numpy as jnp

    from jaxcompress.formats import Int
    from jaxcompress.interchange import to_qwix
    from jaxcompress.quantize import to_qarray

    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(ImportError, match=r"pip install jaxcompress\[qwix\]"):
        to_qwix(to_qarray(jnp.ones(3), Int(8)))
