"""Charts as SVG that takes its colours and its font from the page: light, dark and print by the style sheet alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

# Colours that nobody would choose stand for the page's own, see `_themed`.
INK, MUTED, GRID = "#010a01", "#010b01", "#010c01"
N_COLOURS = 6
COLOURS = tuple(f"#02{number:02d}02" for number in range(10, 10 + N_COLOURS))
PAGE_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    **{colour: f"var(--line-{number})" for number, colour in enumerate(COLOURS)},
}

WIDTH, HEIGHT, ROW = 5.2, 3.4, 0.3  # inches of 72 pixels, as on a phone; a row of the interval chart
POINTS_PER_INCH = 72
PALE = 0.4  # opacity

UNWANTED = tuple(
    re.compile(pattern, flags=re.DOTALL)
    for pattern in (
        r"<metadata>.*?</metadata>",
        r"<!--.*?-->",
        r"<style[^>]*>.*?</style>",  # it would hold for the whole page
        r"font-family: [^;\"]*;?",
        r'\bid="[a-zA-Z.]+2?d?_\d+"',  # of groups; those that are referred to are hashes
    )
)


@dataclass(frozen=True)
class Drawn:
    """An SVG, and where its axes lie in it, in pixels.

    `left` and `right` stand for the values `low` and `high`, `bottom` and `top` for `lowest` and `highest`.
    """

    svg: str
    left: float
    right: float
    top: float
    bottom: float
    low: float
    high: float
    lowest: float
    highest: float


def intervals(
    name: str, names: Sequence[str], estimates: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> Drawn:
    """A point and its interval per name, the first on top; the first is drawn in colour."""
    with _drawing(name, height=ROW * len(names) + 0.8) as (figure, axes):
        places = range(len(names))
        for place, estimate, (low, high) in zip(places, estimates, bounds, strict=True):
            colour = COLOURS[0] if place == 0 else MUTED
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([estimate], [place], color=colour, marker="o", markersize=6)
        axes.set_yticks(list(places), list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        return _drawn(figure, axes)


def curves(
    name: str, lines: Mapping[str, pd.DataFrame], *, x: str, y: str, labels: tuple[str, str], mark: float | None = None
) -> Drawn:
    """A line per name, `y` over `x`, pale where colours run out; `mark` is a place on the x axis to point at."""
    with _drawing(name, height=HEIGHT) as (figure, axes):
        for number, frame in reversed(list(enumerate(lines.values()))):
            colour = COLOURS[number] if number < N_COLOURS else (MUTED, PALE)
            axes.plot(frame[x], frame[y], color=colour, linewidth=2.4 if number == 0 else 1.4)
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        return _drawn(figure, axes)


def reliability(name: str, lines: Mapping[str, pd.DataFrame]) -> Drawn:
    """What came over what was promised, a line per name, beside the diagonal of perfect calibration."""
    with _drawing(name, height=HEIGHT) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for number, frame in reversed(list(enumerate(lines.values()))):
            colour = COLOURS[number % N_COLOURS]
            axes.plot(
                frame["mean_score"], frame["positive_rate"], color=colour, linewidth=1.6, marker="o", markersize=4
            )
        axes.set_xlabel("mean score of the bin")
        axes.set_ylabel("share of positives")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        return _drawn(figure, axes)


def learning(name: str, folds: Mapping[str, pd.DataFrame], *, y: str, label: str) -> Drawn:
    """One learner's evaluations while it trained: a line per fold over the optimiser's steps."""
    with _drawing(name, height=0.7 * HEIGHT) as (figure, axes):
        for number, frame in enumerate(folds.values()):
            axes.plot(
                frame["step"], frame[y], color=COLOURS[number % N_COLOURS], linewidth=1.6, marker="o", markersize=3
            )
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(label)
        return _drawn(figure, axes)


@contextmanager
def _drawing(name: str, *, height: float) -> Iterator[tuple["Drawing", "Axes"]]:
    """An empty chart; `name` makes its ids its own, the same every time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Drawing

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 11,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
    with rc_context(settings):
        figure = Drawing(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def _drawn(figure: "Drawing", axes: "Axes") -> Drawn:
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    box = axes.get_window_extent()  # after the layout was made; from the bottom, in dots of the figure
    scale = POINTS_PER_INCH / figure.dpi
    height = figure.get_figheight() * POINTS_PER_INCH
    (low, high), (lowest, highest) = axes.get_xlim(), axes.get_ylim()
    return Drawn(
        _themed(written.getvalue()),
        left=box.x0 * scale,
        right=box.x1 * scale,
        top=height - box.y1 * scale,
        bottom=height - box.y0 * scale,
        low=low,
        high=high,
        lowest=lowest,
        highest=highest,
    )


def _themed(svg: str) -> str:
    """The bare ``<svg>`` element: the page's colours and font, no size of its own, nothing that a reader would hear."""
    svg = svg[svg.index("<svg") :]
    for part in UNWANTED:
        svg = part.sub("", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg, count=1)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r"\s*\n\s*", "\n", svg)
