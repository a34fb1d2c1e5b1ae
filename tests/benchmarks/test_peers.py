# SPDX-License-Identifier: Apache-2.0
"""Other libraries: what is missing is said, what breaks has a row, and none is favored."""

import json

import numpy as np
import pytest

from benchmarks import peers
from benchmarks._libraries import (
    LIBRARIES,
    Library,
    Skipped,
    Trained,
    attempt,
    missing,
    weights_off,
)


def by_hand(layers, factor=1.0):
    """A network in NumPy, with scaled kernels."""

    def predict(x):
        for i, (kernel, bias) in enumerate(layers):
            x = (np.maximum(x, 0) if i else x) @ (factor * kernel) + bias
        return x

    return predict


def wrong(*_):
    raise TypeError("no  such\ndtype")


ABSENT = Library(name="absent", imports=("json", "no_such_module"), install="it")
BROKEN = Library(name="broken", rounded=wrong, trained=wrong, served=wrong)
HALF = Library(
    name="half",
    rounded=lambda layers, bits: {"": by_hand(layers), ", more": by_hand(layers, 0.5)},
    trained=lambda work, bits: {"": Trained(lambda x, y: None, by_hand(work.layers))},
    served=lambda work: {", served": by_hand(work.layers)},
)


def test_what_is_missing_is_said():
    assert missing(ABSENT) == "not installed: pip install it"
    assert missing(Library(name="here", imports=("json",))) is None


def test_what_breaks_is_told():
    assert attempt(lambda: 3) == 3
    assert attempt(wrong) == Skipped("breaks: TypeError: no such dtype")


def test_the_error_of_weights_is_that_of_their_norm():
    draws = np.random.default_rng(0)
    shapes = [(7, 5), (5, 3)]
    layers = [(draws.normal(size=s), draws.normal(size=s[1])) for s in shapes]
    layers = [(k.astype("f"), b.astype("f")) for k, b in layers]
    off = weights_off(
        layers, lambda some: {"": by_hand(some), ", less": by_hand(some, 0.97)}
    )
    assert off == {"": 0, ", less": pytest.approx(3, rel=1e-4)}


def test_every_library_has_work_and_says_how_to_install_it():
    assert len({library.name for library in LIBRARIES}) == len(LIBRARIES)
    for library in LIBRARIES:
        assert library.rounded or library.trained or library.served
        assert bool(library.imports) == bool(library.install)


@pytest.mark.slow
def test_rows_are_measured_or_say_why_not(monkeypatch, capsys):
    monkeypatch.setattr(peers, "LIBRARIES", (HALF, ABSENT, BROKEN))
    monkeypatch.setattr(peers, "BITS", (4,))
    peers.main(["--quick"])
    printed = capsys.readouterr()
    assert "left out: absent is not installed: pip install it" in printed.err
    run = json.loads(printed.out.splitlines()[-1])
    assert run["missing"] == {"absent": "not installed: pip install it"}
    rows = {row["name"]: row for row in run["rows"]}
    reason = "breaks: TypeError: no such dtype"
    assert rows["4 bits: broken"] == {
        "name": "4 bits: broken",
        "extra": {"rounding": reason, "training": reason},
    }
    assert rows["serve: broken"]["extra"] == {"serving": reason}
    exact, half = rows["4 bits: half"], rows["4 bits: half, more"]
    floats = rows["train: JAX floats"]["extra"]
    assert exact["extra"]["weights off by %"] == 0
    assert exact["extra"]["rounded %"] == floats["rounded %"]
    assert half["extra"]["weights off by %"] == pytest.approx(50)
    assert "ratio" in exact and "ratio" not in half
    assert exact["extra"]["to its floats"] == exact["ratio"][1]
    served = rows["serve: half, served"]
    assert served["extra"]["accuracy %"] == floats["rounded %"]
    assert not [name for name in rows if "absent" in name]
