# SPDX-License-Identifier: Apache-2.0
"""What saving and loading need besides the tree, as the allocator counts it."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save as save_whole
from test_damaged import forge

from jaxcompress import pack
from jaxcompress.pack import ArtifactError, _ans, _container, _packed, _symbols

SHAPE = (2000, 500)


def leaf(kind):
    draws = np.random.default_rng(0)
    normal = draws.standard_normal(SHAPE, np.float32)
    return {
        "constant": np.ones(SHAPE, np.float32),
        "normal": normal,
        "sparse": np.where(draws.random(SHAPE) < 0.9, 0, normal),
        "few values": np.round(normal),
        "codes": draws.integers(-7, 8, SHAPE, np.int8),
        "sparse codes": (normal > 2).astype(np.int8),
    }[kind]


def peak_of(run):
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_parts(monkeypatch):
    """What is worked on at a time does not grow with the leaf: here it is small, too."""
    monkeypatch.setattr(_ans, "_PART", 1 << 12)
    monkeypatch.setattr(_packed, "_PART", 1 << 12)
    monkeypatch.setattr(_symbols, "_MOST", 1 << 10)
    monkeypatch.setattr(_container, "_IN_MEMORY", 1 << 16)
    monkeypatch.setattr(_container, "_CHUNK", 1 << 16)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "kind", ["constant", "normal", "sparse", "few values", "codes", "sparse codes"]
)
def test_saving_needs_less_than_one_and_a_half_leaves(path, kind):
    tree = {str(i): leaf(kind) for i in range(3)}
    pack.save(path, {"a": leaf(kind)[:9]})  # imports
    most = 1.5 * tree["0"].nbytes + (3 << 16)
    assert peak_of(lambda: pack.save(path, tree)) < most
    loaded = pack.load(path)
    assert all(np.asarray(loaded[k]).tobytes() == tree[k].tobytes() for k in tree)


def test_the_container_is_that_of_safetensors(path):
    payloads = {"": b"", "10": b"abc", "2": b"defgh" * 999, "b": b"\x00"}
    metadata = {"jaxcompress": '{"tree":"\\\N{SNOWMAN}"}'}
    with _container.Spool(path.parent) as spool:
        for name, data in payloads.items():
            spool.add(name, [data[:2], bytearray(data[2:])])
        assert spool.sizes == {name: len(data) for name, data in payloads.items()}
        ours = b"".join(spool.chunks(metadata, "\N{SNOWMAN}", b"head"))
    content = np.frombuffer(b"head" + b"".join(payloads.values()), np.uint8)
    assert ours == save_whole({"\N{SNOWMAN}": content}, metadata)


def test_claims_are_checked_before_anything_is_decoded(path):
    """A small array first: it is not decoded either."""
    forge(
        path,
        {"a": "int8[2]brotli", "b": "float32[1000000000]packed"},
        {"a": b"", "b": b"\x02\0\0"},
    )

    def load():
        with pytest.raises(ArtifactError, match="'b': decoding it needs.*268435456"):
            pack.load(path)

    assert peak_of(load) < 1 << 20


def test_a_constant_may_be_larger_than_the_default_if_it_is_trusted(path):
    pack.save(path, {"a": np.zeros((260 << 20) // 4, np.float32)})
    with pytest.raises(ArtifactError, match="pass a larger max_bytes="):
        pack.load(path)
    assert pack.load(path, max_bytes=1 << 30)["a"].dtype == jnp.float32
