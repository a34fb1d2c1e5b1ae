# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcompress as jc
from research import common
from research.common import _session
from research.lottery_tickets.__main__ import main
from research.lottery_tickets._compressors import held, watched
from research.lottery_tickets._config import DEFAULTS, config_of
from research.lottery_tickets._tables import (
    AGAIN,
    DENSE,
    EARLY,
    ON,
    ONCE,
    ONCE_ERK,
    START,
)
from research.lottery_tickets._train import Runs

pytestmark = pytest.mark.slow

QUICK = config_of("digits", seeds=None, quick=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One trial; what its functions took and gave is kept as well."""
    out = tmp_path_factory.mktemp("study") / "out"
    kept = {"iterative": [], "pruned_once": [], "fixed": []}

    def spy(name):
        original = getattr(Runs, name)

        def run(self, *args):
            made = original(self, *args)
            kept[name].append((args, jax.tree.map(np.asarray, made)))
            return made

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in kept:
            patch.setattr(Runs, name, spy(name))
        assert main(["--quick", "--out", str(out)]) == 0
    return out, kept


def results(finished):
    return json.loads((finished[0] / "results.json").read_text())


def kernels(params):
    return [params[f"Dense_{i}"]["kernel"] for i in range(2)]


def test_every_row_is_there_and_drawn(finished):
    cells = {(r["method"], r["rounds"]) for r in results(finished)["rows"]}
    rounds = {(m, r) for m in (START, EARLY, ON) for r in (1, 2, 3)}
    assert cells == rounds | {
        (DENSE, 0),
        (AGAIN, 1),
        (AGAIN, 3),
        (ONCE, 3),
        (ONCE_ERK, 3),
        (common.SMALL_MACS, 1),
        (common.SMALL_MACS, 3),
    }
    assert (finished[0] / "results.png").stat().st_size > 10_000


def test_sparsities_are_those_of_the_rounds(finished):
    for row in results(finished)["records"]:
        assert row["asked"] == pytest.approx(1 - 0.4 ** row["rounds"])
        zeros = 0 if row["method"] == common.SMALL_MACS else row["asked"]
        assert abs(row["sparsity"] - zeros) <= 1 / 2220, row


def test_masks_only_shrink_from_round_to_round(finished):
    assert len(finished[1]["iterative"]) == 3
    for _, made in finished[1]["iterative"]:
        for kernel in kernels(made):
            kept = kernel != 0
            assert len(kept) == QUICK.rounds + 1 and kept[0].all()
            assert (kept[1:] <= kept[:-1]).all()


def test_controls_have_the_zeros_of_their_ticket(finished):
    assert len(finished[1]["fixed"]) == 6
    for (ticket, start, _), made in finished[1]["fixed"][:4]:
        for zeros, first, kernel in zip(
            *map(kernels, (ticket, start, made)), strict=True
        ):
            assert ((kernel == 0) == (zeros == 0)).all()
            assert (first != 0).all()


def test_the_reinitialized_ticket_starts_elsewhere(finished):
    starts = [start for (_, start, _), _ in finished[1]["fixed"]]
    again, _, once, _ = (kernels(start)[0] for start in starts[:4])
    assert (again != once).all()


def test_nothing_but_the_reported_number_depends_on_the_test_set(
    finished, tmp_path, monkeypatch
):
    load = _session.load

    def wrong(*args, **options):
        data = load(*args, **options)
        y = (data.test.y + 1) % 10
        return dataclasses.replace(data, test=dataclasses.replace(data.test, y=y))

    seen = {name: [] for name in finished[1]}
    for name, calls in finished[1].items():

        def stub(self, *args, name=name, made=iter([m for _, m in calls])):  # noqa: B008
            seen[name].append(args)
            return next(made)

        monkeypatch.setattr(Runs, name, stub)
    monkeypatch.setattr(_session, "load", wrong)
    assert main(["--quick", "--out", str(tmp_path / "out")]) == 0
    for name, calls in finished[1].items():
        for (one, _), two in zip(calls, seen[name], strict=True):
            assert jax.tree.all(jax.tree.map(np.array_equal, one, two))


def test_watching_shows_what_a_round_was_trained_to():
    params = {"kernel": jnp.asarray([[1.0, 2.0, 3.0, 4.0]])}
    ticket = jc.lottery_ticket(0.5, rounds=1, every=2)

    def loss(params, batch):
        return jnp.sum(params["kernel"] * batch)

    init, step = jc.train_step(loss, optax.sgd(1.0), watched(ticket))
    state = init(params)
    for _ in range(2):
        state, _ = step(state, jnp.asarray([[-5.0, 0.0, 0.0, 2.0]]))
    assert state.params["kernel"].tolist() == [[1.0, 2.0, 3.0, 4.0]]  # rewound
    assert state.compression[1]["kernel"].tolist() == [[11.0, 2.0, 3.0, 0.0]]
    view = watched(ticket).apply(state.params, state.compression)
    assert view["kernel"].tolist() == [[1.0, 0.0, 3.0, 0.0]]


def test_zeros_of_matrices_are_held_and_biases_are_free():
    params = {"kernel": jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.zeros(2)}
    ticket = {"kernel": jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), "bias": jnp.zeros(2)}
    view = jc.compress(held(ticket), {**params, "bias": jnp.ones(2)})
    assert view["kernel"].tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert view["bias"].tolist() == [1.0, 1.0]


def test_shown_rounds_are_among_those_that_are_run():
    for data in DEFAULTS:
        config = config_of(data, seeds=5, quick=False)
        assert max(config.shown) == max(config.once) == config.rounds
        assert config.seeds == 5
