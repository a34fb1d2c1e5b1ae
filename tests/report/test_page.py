# SPDX-License-Identifier: Apache-2.0
"""The page is well formed, loads nothing, shows what the records say, and sorts."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from browser import find_browser, open_browser
from hypothesis import given, strategies as st
from recorded import RECORDS, accurate, measured, timed

from jaxcompress import report
from jaxcompress.report._page._scale import scale_of
from jaxcompress.report._page._scatter import charts


class Reader(HTMLParser):
    """Reads a page: its elements, its texts, and whether they are nested well."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts, self.raw = [], [], [], {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            self.raw[self.open[-1]] = data
        elif self.open:
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def small_records():
    size, counted = measured()
    model = report.energy_model(counted)
    parts = {"size": size, "count": counted, "batch": 2, "energy_model": model}
    larger = dataclasses.replace(size, file_bytes=10 * size.file_bytes)
    return [
        accurate("first", [0.90, 0.92], latency=timed(0.002), **parts),
        accurate("second", [0.80, 0.81], latency=timed(0.001), **parts),
        accurate("third", [0.95], simulated=True, size=larger),
    ]


@given(records=st.lists(RECORDS, min_size=1, max_size=4))
def test_any_records_make_a_page_that_is_nested_well(records):
    page = report.html(records)
    assert page == report.html(records)
    reader = Reader(page)
    assert len(reader.all("details")) == len(records)
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        ElementTree.fromstring(table.replace("&nbsp;", " "))
    for picture in re.findall(r"<svg.*?</svg>", page, re.S):
        assert "nan" not in picture and "inf" not in picture.replace("info", "")
        ElementTree.fromstring(picture)


def test_the_page_loads_nothing_and_runs_only_its_own_script():
    page = report.html(small_records())
    reader = Reader(page)
    policy = next(
        attrs["content"]
        for attrs in reader.all("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    for tag in ("style", "script"):
        digest = hashlib.sha256(reader.raw[tag].encode()).digest()
        assert f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
        assert len(reader.all(tag)) == 1
    assert policy.startswith("default-src 'none'")
    names = {name for _, attrs in reader.elements for name in attrs}
    assert not names & {"src", "href", "style", "onclick"}
    without_names = page.replace("http://www.w3.org/2000/svg", "")
    assert "http" not in without_names.replace('http-equiv="', "")
    assert "url(" not in page and "@import" not in page


def test_names_are_text_and_nothing_else():
    evil = "</script><img src=x onerror=alert(1)>\"'&\0"
    record = dataclasses.replace(small_records()[0], name=evil)
    page = report.html([record, *small_records()], title=evil)
    reader = Reader(page)
    assert not reader.all("img") and len(reader.all("script")) == 1
    shown = evil.replace("\0", "\ufffd")
    assert reader.texts.count(shown) >= 4  # title, heading, tables


def test_headings_are_buttons_and_cells_know_what_they_sort_by():
    records = small_records()
    reader = Reader(report.html(records))
    assert len(reader.all("button")) == len(
        [h for h in reader.all("th") if "data-first" in h]
    )
    numbers = [float(c["data-number"]) for c in reader.all("td") if "data-number" in c]
    for record in records:
        assert record.metric("accuracy").mean in numbers
        assert record.size is not None and record.size.file_bytes in numbers
    assert {"table", "figure", "details"} <= {tag for tag, _ in reader.elements}
    assert all(f.get("aria-label") for f in reader.all("div") if "tabindex" in f)
    assert all(picture.get("role") == "img" for picture in reader.all("svg"))
    text = " ".join(reader.texts)
    assert "simulated" in text and "unavailable (not measured)" in text
    assert "45 nm" in text and "one seed shows no spread" in text


POINTS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=2, max_size=8
)


@given(points=POINTS, higher=st.booleans())
def test_nothing_beats_what_is_on_the_front(points, higher):
    size, _ = measured()
    records = [
        accurate(
            str(i),
            [],
            metrics=[
                report.Metric(
                    name="m",
                    values=[value],
                    seeds=[0],
                    split="test",
                    higher_is_better=higher,
                )
            ],
            size=dataclasses.replace(size, file_bytes=cost),
        )
        for i, (cost, value) in enumerate(points)
    ]
    (chart,) = charts(records)
    sign = 1 if higher else -1
    front = {(dot.cost, dot.metric.mean) for dot in chart.front}
    wanted = {
        (c, v)
        for c, v in points
        if not any(
            (d <= c and sign * w >= sign * v) and (d, w) != (c, v) for d, w in points
        )
    }
    assert front == wanted


def test_pictures_compare_only_what_was_measured_alike():
    size, _ = measured()
    one = accurate("a", [0.5], size=size, latency=timed(0.1))
    split = [report.accuracy([0.5], [0], split="validation")]
    other = accurate("b", [], metrics=split, size=size, latency=timed(0.1))
    assert not charts([one, other])
    there = dataclasses.replace(one, latency=timed(0.1, runtime="LiteRT"))
    assert [c.title for c in charts([one, there])] == [
        "accuracy (test) against file size"
    ]
    batch = dataclasses.replace(one, batch=8)
    assert len(charts([one, batch])) == 1 and len(charts([one, one])) == 2


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(values=st.lists(NUMBERS, min_size=1, max_size=4), log=st.booleans())
def test_scales_show_every_value_between_their_ends(values, log):
    scale = scale_of(values, 10.0, 110.0, log=log)
    assert all(9.9 <= scale(v) <= 110.1 for v in values)
    ticks = scale.ticks()
    assert ticks == sorted(ticks) and len(ticks) <= 12
    assert all(9.9 <= scale(tick) <= 110.1 for tick in ticks)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0.0, 10.0], [0, 2.5, 5, 7.5, 10]), ([1e3, 1e6], [1e3, 1e4, 1e5, 1e6])],
)
def test_ticks_are_round(values, ticks):
    assert scale_of(values, 0.0, 1.0, log=True).ticks() == ticks


def test_a_picture_is_a_file_of_its_own(tmp_path):
    records, path = small_records(), tmp_path / "a.svg"
    report.plot(records, path)
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = " ".join(root.itertext())
    assert "first" in text and "bytes of the file" in text
    report.plot(records, path, against="latency")
    assert "median ms of a call" in path.read_text()
    for wrong in ({"metric": "loss"}, {"against": "joules"}):
        with pytest.raises(
            ValueError, match=r"must mean one picture .*accuracy \(test\)"
        ):
            report.plot(records, path, **wrong)
    with pytest.raises(ValueError, match="must end in .svg"):
        report.plot(records, tmp_path / "a.png")


def test_many_leaves_are_counted_not_drawn():
    size, _ = measured()
    leaves = tuple(
        dataclasses.replace(size.leaves[0], path=f"layer_{i}", nbytes=i + 1)
        for i in range(40)
    )
    record = accurate("a", [0.5], size=dataclasses.replace(size, leaves=leaves))
    text = " ".join(Reader(report.html([record])).texts)
    assert "layer_39" in text and "layer_3 " not in text
    assert "10 smaller ones are not shown" in text


BROWSER = find_browser()


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the path")
def test_in_a_browser_it_sorts_without_a_complaint(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(report.html(small_records()), encoding="utf-8")
    assert BROWSER is not None
    with open_browser(BROWSER) as page:
        page.open(path)
        rows = "[...document.querySelector('tbody').rows]"
        names = f"{rows}.map(row => row.cells[0].firstChild.data)"
        assert page.evaluate(names) == ["first", "second", "third"]
        heads = "[...document.querySelectorAll('th button')]"
        head = f"{heads}.find(b => b.textContent === {{!r}})"

        def click(title):
            page.evaluate(f"{head.format(title)}.click()")
            return page.evaluate(names)

        assert click("accuracy") == ["third", "first", "second"]  # the best first
        assert click("accuracy") == ["second", "first", "third"]
        assert click("median") == ["second", "first", "third"]  # missing: last
        page.evaluate(f"{head.format('median')}.focus()")
        page.press_enter()
        assert page.evaluate(names) == ["first", "second", "third"]
        sorted_by = "document.querySelector('th[aria-sort]').getAttribute('aria-sort')"
        assert page.evaluate(sorted_by) == "descending"
        background = "getComputedStyle(document.body).backgroundColor"
        colors = set()
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.call("Emulation.setEmulatedMedia", features=features)
            colors.add(page.evaluate(background))
        assert len(colors) == 2
        box = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert box[0] <= box[1]
        assert page.evaluate("document.querySelectorAll('circle').length") == 5
        # The policy is in force: what the page does not bring along is refused.
        assert page.problems == []
        page.evaluate("""new Promise(done => {
            document.addEventListener("securitypolicyviolation", done);
            document.body.insertAdjacentHTML("beforeend", "<img src=x.png>");
        }).then(() => 0)""")
        page.evaluate("0")
        assert any("Content Security Policy" in str(p) for p in page.problems)


def test_sections_come_before_the_records_and_are_escaped():
    made = report.Section(
        title="a < b", note="n & m", columns=["row", "why"], rows=[["<x>", "y"]]
    )
    page = report.html(small_records(), sections=[made, made])
    reader = Reader(page)
    assert reader.texts.count("a < b") == reader.texts.count("n & m") == 2
    assert reader.texts.index("<x>") < reader.texts.index("first")
    assert all(attrs.get("tabindex") == "0" for attrs in scrolling(reader))


def scrolling(reader):
    found = [attrs for attrs in reader.all("div") if "scroll" in attrs.get("class", "")]
    assert len(found) > 2
    return found


def test_a_page_without_sections_has_no_heading_for_them():
    assert "<h2>Models</h2>" not in report.html(small_records())


@pytest.mark.parametrize("row", [["a"], ["a", "b", "c"], "ab"])
def test_a_row_of_a_section_fits_its_columns(row):
    with pytest.raises(ValueError, match="each row of 'sizes' must have 2 texts"):
        report.Section(title="sizes", columns=["model", "MB"], rows=[row])
