# SPDX-License-Identifier: Apache-2.0
"""Report the quality, size, speed, energy and provenance of a model.

What is not measured is labelled: operations are counted, and the energy of an operation
model has a type and columns of its own. A whole record, from a model to a page:

    >>> import os, tempfile, jax, jax.numpy as jnp, jaxcompress as jc
    >>> from jaxcompress import report
    >>> def fn(params, x):
    ...     return x @ params["w"]
    >>> params = {"w": jax.random.normal(jax.random.key(0), (64, 10))}
    >>> x = jnp.ones((8, 64))
    >>> packed = jc.compress(jc.weight_quantization(bits=4, where="w"), params)
    >>> counted = jc.count(fn, packed, x)
    >>> record = report.Record(
    ...     name="int4",
    ...     provenance=report.provenance(["4-bit weights"]),
    ...     metrics=[report.accuracy([0.91, 0.92, 0.91], [0, 1, 2], split="test")],
    ...     size=report.size(packed),
    ...     batch=len(x),
    ...     count=counted,
    ...     latency=report.latency(lambda p, x: fn(jc.dense(p), x), packed, x),
    ...     energy_model=report.energy_model(counted),
    ...     simulated=True,  # the products are of floats
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "int4.json")
    ...     report.save_records(file, record)
    ...     (same,) = report.load_records(file)
    >>> same == record, len(report.html([record])) > 1000
    (True, True)
"""

from ._compare import Verdict, compare
from ._counter import Counter, energy
from ._energy import Energy
from ._energy_model import EnergyModel, EnergyParts, energy_model
from ._entropy import bound_bytes, code_entropy
from ._exported_latency import exported_latency
from ._latency import Latency, latency
from ._markdown import markdown
from ._memory import Memory, memory
from ._merge import merge
from ._metric import Metric, accuracy, bits_per_character, loss, perplexity
from ._page import Section, html, plot
from ._provenance import Provenance, provenance
from ._record import Record, load_records, save_records
from ._size import LeafSize, Size, size

__all__ = [
    "Counter",
    "Energy",
    "EnergyModel",
    "EnergyParts",
    "Latency",
    "LeafSize",
    "Memory",
    "Metric",
    "Provenance",
    "Record",
    "Section",
    "Size",
    "Verdict",
    "accuracy",
    "bits_per_character",
    "bound_bytes",
    "code_entropy",
    "compare",
    "energy",
    "energy_model",
    "exported_latency",
    "html",
    "latency",
    "load_records",
    "loss",
    "markdown",
    "memory",
    "merge",
    "perplexity",
    "plot",
    "provenance",
    "save_records",
    "size",
]
