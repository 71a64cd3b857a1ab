"""What a report is made of: sections of notes, tables and figures, without a word of HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

Words = Callable[[Any], str]
Tone = Literal["", "ok", "note", "warning", "fault"]
Style = Literal["plain", "heat", "bars", "stacked"]

NOTHING, MINUS = "–", "−"


@dataclass(frozen=True)
class Cell:
    """One cell: its words, and how strongly it is tinted (or how long its bar is), in [0, 1]; None for not at all."""

    text: str
    level: float | None = None
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes
    ----------
    numeric
        Per column, whether its cells are figures, which stand right.
    style
        "heat" tints cells by their level, "bars" draws it as a bar; "stacked" is for sentences: on a phone the cells of
        a row stand below each other.
    folded
        Shown only when asked for.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]
    style: Style = "plain"
    folded: bool = False


@dataclass(frozen=True)
class Legend:
    """The name of a line in a chart, and the number of its colour."""

    name: str
    colour: int


@dataclass(frozen=True)
class Figure:
    """A chart, its words for those who cannot see it, and the figures behind it.

    Attributes
    ----------
    label
        What the chart shows, in a sentence.
    probe
        Curves that a reader may ask for a value, as plain values; empty for a chart that only stands there.
    note
        A sentence below it: how it is to be read.
    """

    title: str
    label: str
    svg: str
    table: Table
    legend: tuple[Legend, ...] = ()
    probe: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Note:
    """A sentence between tables: what a figure means, or why there is none."""

    text: str


Block = Table | Figure | Note


@dataclass(frozen=True)
class Section:
    """One question about a task or a run, and the blocks that answer it."""

    key: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


def table_of(
    frame: pd.DataFrame,
    caption: str,
    *,
    words: Mapping[str, Words] | None = None,
    tinted: Sequence[str] = (),
    style: Style = "plain",
    folded: bool = False,
) -> Table:
    """The table of a frame: its columns become the head, underscores become spaces.

    Parameters
    ----------
    words
        Column -> how its values are written; the others as `say` does.
    tinted
        Columns whose values give the cells their level: from the lowest of them all (0) to the highest (1); bars begin
        at the value 0.

    Examples
    --------
    >>> table = table_of(pd.DataFrame({"model": ["a", "b"], "f1": [0.5, 1.0]}), "F1", tinted=["f1"])
    >>> [(cell.text, cell.level) for _, cell in table.rows]
    [('0.5000', 0.0), ('1.0000', 1.0)]
    """
    chosen, levels = words or {}, (_lengths if style == "bars" else _levels)(frame[list(tinted)])
    columns = [
        [
            Cell(chosen.get(name, say)(value), None if name not in levels or np.isnan(level) else float(level))
            for value, level in zip(frame[name], levels.get(name, np.zeros(len(frame))), strict=True)
        ]
        for name in frame.columns
    ]
    return Table(
        caption,
        tuple(str(name).replace("_", " ") for name in frame.columns),
        tuple(zip(*columns, strict=True)),
        tuple(pd.api.types.is_numeric_dtype(frame[name]) or name in chosen for name in frame.columns),
        style=style,
        folded=folded,
    )


def say(value: Any) -> str:
    """A value in words: whole numbers with thousands, others with four digits, a dash for what is not there.

    Examples
    --------
    >>> [say(value) for value in (1234, 0.12345, float("nan"), "en", 31.5)]
    ['1,234', '0.1235', '–', 'en', '31.5']
    """
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return NOTHING
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}".replace("-", MINUS)
    if isinstance(value, float | np.floating):
        number = float(value)
        return (f"{number:.4f}" if abs(number) < 10 else f"{number:,.1f}").replace("-", MINUS)
    return str(value)


def share(value: float) -> str:
    """A share in per cent.

    Examples
    --------
    >>> share(0.1234)
    '12.3 %'
    """
    return NOTHING if np.isnan(value) else f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """A difference with its sign.

    Examples
    --------
    >>> signed(-0.00123), signed(0.0)
    ('−0.0012', '0.0000')
    """
    if np.isnan(value):
        return NOTHING
    return f"{value:+.4f}".replace("-", MINUS) if round(value, 4) else f"{0:.4f}"


def bounds(low: float, high: float) -> str:
    """An interval.

    Examples
    --------
    >>> bounds(0.81, 0.8345)
    '0.8100 to 0.8345'
    """
    return NOTHING if np.isnan(low) or np.isnan(high) else f"{say(float(low))} to {say(float(high))}"


def _levels(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The values of a frame between its lowest (0) and its highest (1), by column; all .5 where they are equal."""
    values = frame.to_numpy(dtype=np.float64)
    if not np.isfinite(values).any():
        return {name: np.full(len(frame), np.nan) for name in frame.columns}
    low, high = np.nanmin(values), np.nanmax(values)
    levels = (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 0.5)
    return dict(zip(frame.columns, levels.T, strict=True))


def _lengths(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The values of a frame as shares of its highest, by column: how long their bars are; none below 0."""
    values = frame.to_numpy(dtype=np.float64)
    highest = np.nanmax(values, initial=0.0)
    lengths = np.where(values < 0, np.nan, values / highest if highest > 0 else 0.0 * values)
    return dict(zip(frame.columns, lengths.T, strict=True))
