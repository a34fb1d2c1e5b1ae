# SPDX-License-Identifier: Apache-2.0
"""Pareto pictures: a metric against a cost, with the models that nothing else beats."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from .._columns import conditions, metric_keys, metric_of
from .._metric import FRACTION, Metric
from .._record import Record
from .._text import milliseconds_text, short_text
from ._markup import Markup, element
from ._scale import Scale, scale_of

WIDTH, HEIGHT = 560.0, 360.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 16.0, 50.0
_LETTER = 6.8  # pixels of a letter
_LONGEST = 26


@dataclasses.dataclass(frozen=True)
class Dot:
    """A model in a picture.

    Attributes:
      name: its name.
      cost: of which less is better.
      metric: of which mean and spread are shown.
      cost_text: the cost for people.
    """

    name: str
    cost: float
    metric: Metric
    cost_text: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A metric against a cost, of records that were measured alike.

    Attributes:
      title: what is shown.
      cost: label of the cost's axis.
      dots: the models, at least two.
    """

    title: str
    cost: str
    dots: tuple[Dot, ...]

    @property
    def front(self) -> list[Dot]:
        """The models that no other is at least as good as in both, by cost."""
        sign = 1 if self.dots[0].metric.higher_is_better else -1
        best: list[Dot] = []
        for dot in sorted(self.dots, key=lambda d: (d.cost, -sign * d.metric.mean)):
            if not best or sign * dot.metric.mean > sign * best[-1].metric.mean:
                best.append(dot)
        return best


def charts(records: Sequence[Record]) -> list[Chart]:
    """Return a chart of each metric and split against each cost that two models have.

    Files are compared among all records; latencies only among those of one runtime,
    device, number of threads and batch.
    """
    return [
        Chart(f"{key[0]} ({key[1]}) against {cost}", axis, dots)
        for key in metric_keys(records)
        for cost, axis, of in _costs(records)
        if len(dots := tuple(_dots(records, key, of))) > 1
    ]


_Cost = Callable[[Record], tuple[float, str] | None]


def _costs(records: Sequence[Record]) -> Iterator[tuple[str, str, _Cost]]:
    def stored(record: Record) -> tuple[float, str] | None:
        size = record.size
        return size and (float(size.file_bytes), f"{size.file_bytes:,} bytes")

    yield "file size", "bytes of the file", stored
    for where in dict.fromkeys(filter(None, map(conditions, records))):

        def timed(record: Record, where: str = where) -> tuple[float, str] | None:
            if record.latency is None or conditions(record) != where:
                return None
            seconds = record.latency.median_seconds
            return 1e3 * seconds, milliseconds_text(seconds)

        yield "latency", f"median ms of a call: {where}", timed


def _dots(
    records: Sequence[Record], key: tuple[str, str, str, bool], cost: _Cost
) -> Iterator[Dot]:
    for record in records:
        metric, paid = metric_of(record, key), cost(record)
        if metric is not None and paid is not None:
            simulated = " (simulated)" if record.simulated else ""
            yield Dot(record.name, paid[0], metric, paid[1] + simulated)


def draw(chart: Chart) -> Markup:
    """Draw a chart as SVG."""
    means = [dot.metric.mean for dot in chart.dots]
    spreads = [dot.metric.spread or 0.0 for dot in chart.dots]
    ends = [
        m + sign * s for m, s in zip(means, spreads, strict=True) for sign in (-1, 1)
    ]
    x = scale_of([d.cost for d in chart.dots], _LEFT, WIDTH - _RIGHT, log=True)
    y = scale_of(ends, HEIGHT - _BOTTOM, _TOP, log=False)
    front = chart.front
    steps = [(x(front[0].cost), y(front[0].metric.mean))]
    for dot in front[1:]:
        steps += [(x(dot.cost), steps[-1][1]), (x(dot.cost), y(dot.metric.mean))]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in steps)
    shown = chart.dots[0].metric
    arrow = "higher is better" if shown.higher_is_better else "lower is better"
    unit = {FRACTION: ", %", "": ""}.get(shown.unit, f", {shown.unit}")
    return element(
        "svg",
        element("title", f"{chart.title}. {_spoken(front)}"),
        *_axes(x, y, chart.cost, f"{shown.name}{unit} ({arrow})", shown),
        element("polyline", points=line, class_="front"),
        *_marks(chart.dots, front, x, y),
        *_labels(chart.dots, front, x, y),
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        xmlns="http://www.w3.org/2000/svg",
    )


def _spoken(front: Sequence[Dot]) -> str:
    return "Nothing beats " + "; ".join(
        f"{d.name}: {d.metric.show(d.metric.mean)} at {d.cost_text}" for d in front
    )


def _axes(
    x: Scale, y: Scale, cost: str, metric: str, shown: Metric
) -> Iterator[Markup]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    percent = 100 if shown.unit == FRACTION else 1
    for tick in y.ticks():
        at = y(tick)
        yield element("line", x1=_LEFT, x2=right, y1=at, y2=at, class_="grid")
        text = f"{percent * tick:.4g}"
        yield _words(text, _LEFT - 8, at + 4, "tick", "end")
    for tick in x.ticks():
        at = x(tick)
        yield element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis")
        yield _words(short_text(tick), at, bottom + 17, "tick", "middle")
    yield element("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis")
    log = ", log scale" if x.logarithmic else ""
    yield _words(f"{cost}{log}", right, HEIGHT - 10, "title", "end")
    yield _words(metric, _LEFT, _TOP - 4, "title", "start")


def _marks(
    dots: Sequence[Dot], front: Sequence[Dot], x: Scale, y: Scale
) -> Iterator[Markup]:
    for dot in dots:
        at, up = x(dot.cost), y(dot.metric.mean)
        parts = [element("title", _tooltip(dot))]
        if dot.metric.spread:
            low, high = _ends(dot, y)
            parts.append(
                element("line", x1=at, x2=at, y1=low, y2=high, class_="spread")
            )
        parts.append(element("circle", cx=at, cy=up, r=5, class_="dot"))
        yield element("g", *parts, class_=_kind(dot, front))


def _labels(
    dots: Sequence[Dot], front: Sequence[Dot], x: Scale, y: Scale
) -> Iterator[Markup]:
    taken = [(x(d.cost) - 6, y(d.metric.mean) - 6, 12.0, 12.0) for d in dots]
    for dot in dots:
        low, high = _ends(dot, y)
        taken.append((x(dot.cost) - 1, high, 2.0, low - high))
    for left, right in zip(front, front[1:], strict=False):
        start, level = x(left.cost), y(left.metric.mean)
        taken.append((start, level - 1, x(right.cost) - start, 2.0))
    # The best ones first: where there is no room, others go without a label.
    for dot in sorted(dots, key=lambda d: d not in front):
        for text in _label(dot.name, x(dot.cost), y(dot.metric.mean), taken):
            yield element("g", text, class_=_kind(dot, front))


def _kind(dot: Dot, front: Sequence[Dot]) -> str:
    return "best" if dot in front else "other"


def _ends(dot: Dot, y: Scale) -> tuple[float, float]:
    """Return the pixels of the lower and the upper end of the spread."""
    mean, spread = dot.metric.mean, dot.metric.spread or 0.0
    return y(mean - spread), y(mean + spread)


def _tooltip(dot: Dot) -> str:
    return f"{dot.name}: {dot.metric.summary()}, {dot.cost_text}"


def _label(
    name: str, at: float, up: float, taken: list[tuple[float, float, float, float]]
) -> list[Markup]:
    """Place a name where it covers nothing; nowhere if there is no such place."""
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    width = _LETTER * len(short)
    places = [(9.0, 4.0, "start"), (-9.0, 4.0, "end")]
    places += [
        (dx, dy, anchor)
        for dy in (-10.0, 18.0, -24.0, 32.0)
        for dx, anchor in ((0.0, "middle"), (7.0, "start"), (-7.0, "end"))
    ]
    for dx, dy, anchor in places:
        left = at + dx - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        box = (left, up + dy - 11, width, 14.0)
        inside = _LEFT < left and left + width < WIDTH - 2
        inside = inside and _TOP < box[1] and box[1] + 14 < HEIGHT - _BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return [_words(short, at + dx, up + dy, "label", anchor)]
    return []


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return (
        a[0] < b[0] + b[2]
        and b[0] < a[0] + a[2]
        and a[1] < b[1] + b[3]
        and b[1] < a[1] + a[3]
    )


def _words(text: str, x: float, y: float, kind: str, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, class_=kind, text_anchor=anchor)
