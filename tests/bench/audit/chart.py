"""The picture beside the numbers: how long a past state takes as a stream grows, and every ratio with its target."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from tests.bench.audit.figures import Figure
from tests.bench.audit.states import WARM_MILLISECONDS, Point

WIDTH: Final = 900
CURVE_HEIGHT: Final = 300
ROW_HEIGHT: Final = 34
LEFT: Final = 70
RIGHT: Final = 30
TOP: Final = 60
NAMES_WIDTH: Final = 330
"""Beside the bars, for what they are of."""
VALUES_WIDTH: Final = 120
CHARACTERS_MAX: Final = 52
"""Of a bar's name."""

INK, PALE, GRID = "#1b1f24", "#57606a", "#d8dee4"
HOT, ARCHIVED, MISSED = "#0b6bcb", "#8a5a00", "#b3261e"

Scale = Callable[[float], float]


def drawn(points: Sequence[Point], figures: Sequence[Figure], caption: str) -> str:
    """Draw both pictures into one SVG; *caption* says what they were measured on."""
    bars = [figure for figure in figures if figure.ratio is not None and figure.target is not None]
    bars_top = TOP + CURVE_HEIGHT + 110
    height = bars_top + ROW_HEIGHT * len(bars) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">',
        "<title>The audit trail: past states as history grows, and ratios to peers</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_curve(points),
        *_bars(bars, bars_top),
        _text(LEFT, height - 14, caption, fill=PALE, size=11),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# ----- the curve


def _curve(points: Sequence[Point]) -> Iterable[str]:
    bottom = TOP + CURVE_HEIGHT
    highest = max(WARM_MILLISECONDS * 1.1, *(point.hot["p95"] for point in points))
    x = _log_scale(points[0].events, max(points[-1].events, points[0].events * 10), LEFT, WIDTH - RIGHT - 110)
    # A state takes between one and hundreds of milliseconds: a linear scale, so that flat looks flat and steep steep.
    y: Scale = lambda value: bottom - CURVE_HEIGHT * value / highest  # noqa: E731 - the other scale is a closure too
    yield _text(LEFT, 28, "State at a random time, milliseconds, as the stream grows", size=16)
    for value in range(0, int(highest) + 1, 50):
        yield _line(LEFT, y(value), WIDTH - RIGHT - 110, y(value), GRID)
        yield _text(LEFT - 8, y(value) + 4, str(value), fill=PALE, anchor="end")
    for point in points:
        yield _text(x(point.events), bottom + 20, f"{point.events:,}", fill=PALE, anchor="middle")
    yield _text((LEFT + WIDTH - RIGHT - 110) / 2, bottom + 42, "events in the stream", fill=PALE, anchor="middle")
    yield _line(LEFT, y(WARM_MILLISECONDS), WIDTH - RIGHT - 110, y(WARM_MILLISECONDS), INK, dashes="6 4")
    yield _text(WIDTH - RIGHT - 104, y(WARM_MILLISECONDS) + 4, "target")
    places = [(point.events, point) for point in points]
    lines = (
        ("hot, median", HOT, "", [(x(events), y(point.hot["p50"])) for events, point in places]),
        ("hot, p95", HOT, "3 3", [(x(events), y(point.hot["p95"])) for events, point in places]),
        ("archived, median", ARCHIVED, "", [(x(events), y(point.archived["p50"])) for events, point in places]),
    )
    last = bottom + 18.0
    for name, colour, dashes, corners in sorted(lines, key=lambda line: -line[3][-1][1]):
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in corners)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
        yield from (f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.5" fill="{colour}"/>' for left, top in corners)
        # Names of lines that end close to each other stand above each other.
        last = min(corners[-1][1] + 4, last - 16)
        yield _text(corners[-1][0] + 8, last, name, fill=colour)


# ----- the bars


def _bars(figures: Sequence[Figure], top: float) -> Iterable[str]:
    yield _text(LEFT, top - 34, "Times as fast as the peer (log scale); the mark is the target", size=16)
    if not figures:
        return
    begin, end = NAMES_WIDTH + 20, WIDTH - VALUES_WIDTH
    reached = [value for figure in figures for value in (figure.compared, figure.target or 1.0)]
    x = _log_scale(min(0.1, *reached), max(10.0, *reached), begin, end)
    for number, figure in enumerate(figures):
        middle = top + ROW_HEIGHT * number
        target = x(figure.target or 1.0)
        colour = HOT if figure.is_met else MISSED
        peer = f"beside {figure.peer}" + (" (times as long, at most)" if figure.at_most else "")
        yield _text(NAMES_WIDTH, middle + 2, _cut(figure.name), anchor="end")
        yield _text(NAMES_WIDTH, middle + 15, _cut(peer), fill=PALE, anchor="end", size=11)
        width = max(1.0, x(figure.compared) - begin)
        yield f'<rect x="{begin}" y="{middle - 9:.1f}" width="{width:.1f}" height="18" fill="{colour}"/>'
        yield _line(target, middle - 13, target, middle + 13, INK, width=2.5)
        sign = "✓" if figure.is_met else "✗"
        yield _text(end + 10, middle + 4, f"{sign} {figure.compared:,.3g} times", fill=colour)


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS_MAX else text[: CHARACTERS_MAX - 1] + "…"


# ----- drawing


def _log_scale(first: float, last: float, begin: float, end: float) -> Scale:
    span = math.log10(last / first)

    def scale(value: float) -> float:
        return begin + (end - begin) * math.log10(value / first) / span

    return scale


def _text(x: float, y: float, text: str, *, fill: str = INK, anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
    )


def _line(x: float, y: float, x_end: float, y_end: float, colour: str, *, width: float = 1, dashes: str = "") -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x_end:.1f}" y2="{y_end:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" stroke-dasharray="{dashes}"/>'
    )
