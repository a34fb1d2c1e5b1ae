# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

from research import common
from research.common._ledger import Ledger
from research.common._search import text_of_candidate


@dataclasses.dataclass(frozen=True)
class Setting:
    rate: float
    scale: str = "mse"


def test_the_first_of_the_best_is_chosen(tmp_path):
    search = common.Search(Ledger(common.Folder(tmp_path), "trials.json"))
    best = search.best("rate", [1e-3, 3e-3, 1e-2], lambda rate: rate > 1e-3)
    assert best.chosen == 3e-3 and search.trials == 3
    assert best.values == {1e-3: False, 3e-3: True, 1e-2: True}
    least = search.best("least", [1, 2], lambda x: {"x": x}, lambda value: -value["x"])
    assert least.chosen == 1


def test_counting_measures_nothing():
    search = common.Search()
    best = search.best("rate", iter([1e-3, 3e-3]), lambda rate: 1 / 0)
    assert best.chosen == 1e-3 and search.trials == 2


def test_what_was_measured_is_not_measured_again(tmp_path):
    measured = []

    def measure(setting):
        measured.append(setting.rate)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return setting.rate

    def choose():
        search = common.Search(Ledger(common.Folder(tmp_path), "trials.json"))
        return search.best("row", map(Setting, (1.0, 2.0, 3.0)), measure).chosen

    try:
        choose()
    except KeyboardInterrupt:
        pass
    assert choose() == Setting(3.0) and measured == [1.0, 2.0, 2.0, 3.0]
    trials = json.loads((tmp_path / "trials.json").read_text())
    assert list(trials) == ["row, 1, mse", "row, 2, mse", "row, 3, mse"]


def test_candidates_have_texts():
    assert text_of_candidate(0.001) == "0.001"
    assert text_of_candidate((1e-3, "LSQ")) == "0.001, LSQ"
    assert text_of_candidate(Setting(4.0)) == "4, mse"


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 1.0
    seeds: int = 1
    quick: bool = False


def test_a_study_chooses_without_the_test_set(tmp_path):
    def choose(config, data, search):
        assert len(data.test) == 0 and len(data.validation) == 180
        return {"rate": search.best("rate", [1.0, 2.0], float).chosen}

    study = common.Study(
        name="a_study",
        about="",
        config=lambda data, seeds, quick: Config(),
        run=lambda config, session: None,
        choose=choose,
    )
    assert study.main(["--choose", "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "choices.json").read_text())
    assert content["split"] == "validation" and content["examples"] == 180
    assert content["data"] == "digits" and content["rate"] == 2.0


def test_a_choice_is_written_with_the_settings_it_was_made_with(tmp_path, capsys):
    def study(options):
        session = common.Session(options, Config())
        session.choose(
            lambda search: {"rate": search.best("rate", [1.0, 2.0], float).chosen},
            setting="rate",
            shown=lambda content: f"chosen: {content['rate']}",
        )

    out = tmp_path / "out"
    assert (
        common.main("a", "", study, ["--out", str(out), "--choose"], chooses=True) == 0
    )
    content = json.loads((out / "choices.json").read_text())
    assert content["rate"] == 2.0 and content["config"] == {"seeds": 1, "quick": False}
    assert content["train"] == 1257 and "provenance" in content
    assert "chosen: 2.0" in capsys.readouterr().out
