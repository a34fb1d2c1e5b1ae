# SPDX-License-Identifier: Apache-2.0
"""Results are kept by name, and the tables of all documents are made from them."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command, _documents, _harness, _results, damage
from benchmarks._documented import TABLES
from benchmarks._tables import Column, Table, Whole, number, rendered

from benchmarks._tables import aim, extra, milliseconds, ratio, speed  # isort: skip


def parse(*argv):
    made = _harness.parser("some_benchmark", "About it.", rounds=30)
    made.add_argument("--size", type=int, nargs="+", default=[1])
    made.add_argument("--max-depth", type=int, default=3)
    made.add_argument("--model", choices=("mlp", "conv"), default="mlp")
    made.add_argument("--folder", type=Path)
    return _harness.parse(made, argv)


def row(name, *quartiles, **more):
    low, middle, high = quartiles or (1.0, 1.0, 1.0)
    times = {"first": 1.0, "minimum": 0.1, "median": 0.5 * middle, "p90": 2.0}
    known = {"name": name, "ratio": [low, middle, high], "aim": None, "extra": {}}
    return known | times | more


def record(folder, rows, *argv):
    _harness.record(rows, parse("--output", str(folder), *argv))


@pytest.mark.parametrize(
    ("argv", "name", "shown"),
    [
        ([], "some_benchmark.json", ""),
        (["--rounds", "30"], "some_benchmark.json", " --rounds 30"),
        (["--model", "mlp", "--size", "1"], "some_benchmark.json", ""),
        (
            ["--model", "conv", "--rounds", "9", "--size", "2", "5"],
            "some_benchmark-size-2-5-model-conv.json",
            " --rounds 9 --size 2 5 --model conv",
        ),
        (["--max-depth", "4"], "some_benchmark-max-depth-4.json", " --max-depth 4"),
        (["--folder", "x/y"], "some_benchmark.json", ""),
    ],
)
def test_results_are_named_for_the_options(tmp_path, argv, name, shown):
    record(tmp_path, [row("a")], *argv)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (run,) = _results.read(tmp_path / name)
    assert run["command"] == f"python -m benchmarks.some_benchmark{shown}"
    assert "folder" not in run and "output" not in run and "options" not in run
    assert run["date"] and run["versions"]["jax"]
    again = command.main(["compare", *[str(tmp_path / name)] * 2])
    assert again == 0


def test_other_platforms_have_other_files(tmp_path):
    path = _results.path(
        "a", ["--rounds", "3", "--size", "2", "--kills", "1"], "gpu", tmp_path
    )
    assert path == tmp_path / "a-size-2-gpu.json"


def test_what_is_written_is_what_was_printed(tmp_path, capsys):
    record(tmp_path / "x.json", [row("a"), row("b", 1, 2, 3)], "--rounds", "2")
    printed = json.loads(capsys.readouterr().out)
    assert _results.read(tmp_path / "x.json") == [printed]
    (tmp_path / "lines").write_text(f"a table\n{json.dumps(printed)}\n")
    assert _results.read(tmp_path / "lines") == [printed]


def test_quick_runs_and_a_dash_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_results, "FOLDER", tmp_path / "results")
    _harness.record([row("a")], parse("--quick"))
    _harness.record([row("a")], parse("--output", "-"))
    assert list(tmp_path.iterdir()) == []
    _harness.record([row("a")], parse())
    assert (tmp_path / "results" / "some_benchmark.json").exists()


def test_counts_are_recorded_too(tmp_path, capsys):
    options = ["--rounds", "2", "--kills", "0", "--kinds", "plan"]
    damage.main([*options, "--output", str(tmp_path / "x.json")])
    (run,) = _results.read(tmp_path / "x.json")
    flips = run["rows"][0]
    assert flips["name"] == "plan: flip" and sum(flips["outcomes"].values()) == 2


SMALL = Table(
    [
        Column("aim", "some_benchmark", aim),
        Column("one", "some_benchmark", ratio),
        Column("two", "some_benchmark-max-depth-4", ratio),
    ],
    corner="ratio to a",
)


@pytest.fixture
def measured(tmp_path):
    """A project with results, and a document whose table is not written yet."""
    rows = [row("a"), row("a (again)", 0.9, 1, 1.1), row("b", 1.5, 2, 3)]
    record(tmp_path, [*rows[:2], rows[2] | {"aim": "<= 2"}])
    record(tmp_path, [*rows, row("c")], "--max-depth", "4")
    text = "# A\n\n<!-- table: small -->\nold\n<!-- end of table -->\n\nb\n"
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def write(folder, *options):
    tables = {"small": SMALL}
    return _documents.main(options, root=folder, tables=tables, folder=folder)


def test_tables_are_written_from_results(measured, capsys):
    assert write(measured, "--check") == 1
    assert "stale: README.md" in capsys.readouterr().out
    assert write(measured) == 0
    before, after = (measured / "README.md").read_text().split("| ratio to a |")
    assert before == "# A\n\n<!-- table: small -->\n"
    table, source, rest = after.split("\n\n", 2)
    assert f"| ratio to a |{table}".splitlines() == [
        "| ratio to a | aim | one | two |",
        "| --- | --- | --- | --- |",
        "| a, again (noise) | | 1.00 [0.900, 1.10] | 1.00 [0.900, 1.10] |",
        "| b | 2 | 2.00 [1.50, 3.00] | 2.00 [1.50, 3.00] |",
    ]
    assert "`python -m benchmarks.some_benchmark --max-depth 4`" in source
    assert "python 3" in source and "jax 0." in source and "cores" in source
    assert source.endswith(").\n<!-- end of table -->") and rest == "b\n"
    assert write(measured, "--check") == write(measured) == 0


def test_a_new_measurement_makes_a_document_stale(measured, capsys):
    write(measured)
    record(measured, [row("a"), row("a (again)"), row("b", 4, 5, 6)])
    assert write(measured, "--check") == 1
    assert "5.00 [4.00, 6.00]" not in (measured / "README.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("table: small", "table: smal", "there is no such table in benchmarks/_docum"),
        ("<!-- end of table -->", "", "1 lines '<!-- table: NAME -->' and 0 lines"),
        ("# A", "# A\n<!-- table: x -->", "2 lines '<!-- table: NAME -->' and 1 lines"),
    ],
)
def test_wrong_markers_are_errors(measured, capsys, old, new, message):
    text = (measured / "README.md").read_text().replace(old, new)
    (measured / "README.md").write_text(text)
    assert write(measured, "--check") == 2
    assert message in capsys.readouterr().err
    assert (measured / "README.md").read_text() == text


def test_a_table_without_its_results_is_an_error(measured, capsys):
    (measured / "some_benchmark-max-depth-4.json").unlink()
    assert write(measured) == 2
    error = capsys.readouterr().err
    assert "some_benchmark-max-depth-4.json" in error
    assert "Run python -m benchmarks some_benchmark" in error


def test_rows_and_columns_that_nothing_measured_are_errors(measured):
    table = Table([Column("one", "some_benchmark", ratio)], {"b": "b", "d": "d"})
    with pytest.raises(ValueError, match=r"no results for \['d'\]"):
        rendered(table, measured)
    table = Table([*SMALL.columns, Column("x", "some_benchmark", ratio, "x{}")])
    with pytest.raises(ValueError, match=r"no results for \['x'\]"):
        rendered(table, measured)


def test_rows_by_parts_and_by_their_whole_name(measured):
    table = Table(
        [Column("x", "some_benchmark-max-depth-4", ratio, "{}{}")],
        {("", "b"): "of parts", Whole("c"): "whole"},
    )
    assert rendered(table, measured).splitlines()[2:4] == [
        "| of parts | 2.00 [1.50, 3.00] |",
        "| whole | 1.00 [1.00, 1.00] |",
    ]


def test_cells():
    reason = row("b", extra={"training": "breaks"})
    assert extra("trained %", "{:.2f}", "training")(reason) == "breaks"
    assert ratio({"name": "b", "extra": {}}) == ""
    known = row("b", 0.25, 0.5, 100, aim="<= 0.5", extra={"KB": 1234.5})
    assert ratio(known) == "0.500 [0.250, 100]"
    assert (speed(known), aim(known)) == ("2.0", "0.5")
    assert milliseconds()(known) == "250" and milliseconds("first")(known) == "1,000"
    assert extra("KB", "{:,.0f}")(known) == "1,234" and extra("nothing")(known) == ""
    texts = ["0.0123", "1.00", "12.3", "100", "123,457"]
    assert [number(x) for x in (0.0123, 1, 12.345, 99.96, 123456.7)] == texts


def test_the_documents_are_current(capsys):
    status = _documents.main(["--check"])
    printed = capsys.readouterr()
    assert status == 0, f"{printed}: run python -m benchmarks tables"


def test_every_table_that_has_its_results_is_in_a_document():
    texts = "".join(path.read_text() for path in _documents.documents(_documents.ROOT))
    for name, table in TABLES.items():
        files = {_results.FOLDER / f"{c.results}.json" for c in table.columns}
        if all(file.exists() for file in files):
            assert f"<!-- table: {name} -->" in texts


@pytest.mark.parametrize("path", sorted(_results.FOLDER.glob("*.json")), ids=str)
def test_results_are_of_benchmarks_that_there_are(path):
    (run,) = _results.read(path)  # refuses quick runs
    options = run["command"].split()[3:]
    platform = run["device"].split(":")[0]
    assert run["benchmark"] in command.names()
    assert _results.path(run["benchmark"], options, platform, path.parent) == path
