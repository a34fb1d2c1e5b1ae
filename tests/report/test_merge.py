# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
from recorded import WHERE, accurate, measured

from jaxcompress import report


def run(name, seed, value, **changes):
    metric = report.accuracy([value], [seed], split="test")
    return accurate(name, [], **({"metrics": [metric]} | changes))


def test_runs_of_a_model_become_one_record_with_all_seeds():
    runs = [run("a", 3, 0.5), run("b", 0, 0.9), run("a", 1, 0.7)]
    runs[0] = dataclasses.replace(runs[0], size=measured()[0])
    a, b = report.merge(runs)
    assert (a.metric("accuracy").values, a.metric("accuracy").seeds) == (
        (0.5, 0.7),
        (3, 1),
    )
    assert a.size == measured()[0] and b == runs[1]
    assert report.merge([a, b]) == (a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 8}, "their batch are None and 8"),
        ({"simulated": True}, "their simulated are"),
        ({"metrics": []}, "their metrics are"),
        (
            {"provenance": dataclasses.replace(WHERE, device="gpu")},
            "their device are 'cpu: cpu' and 'gpu'",
        ),
        (
            {"provenance": dataclasses.replace(WHERE, transforms=["4 bits"])},
            "their transforms are",
        ),
    ],
)
def test_other_models_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        report.merge([run("a", 0, 0.5), run("a", 1, 0.5, **changes)])


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match="every seed must occur once"):
        report.merge([run("a", 0, 0.5), run("a", 0, 0.5)])
    with pytest.raises(ValueError, match="records must not be empty"):
        report.merge([])
