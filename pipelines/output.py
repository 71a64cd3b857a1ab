"""What commands print: one table on stdout in the format asked for; narration goes to stderr by logging."""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from competition.progress import no_colour

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

Format = Literal["table", "json", "csv"]
WIDE = 260  # the leaderboard's columns
PAGE = 160  # sentences
LONGEST_CELL = 60
SHORT_CELL = 32
SEPARATOR = 3  # characters between two columns


def print_table(
    frame: "pd.DataFrame",
    output: Format,
    *,
    title: str = "",
    important: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print `frame` as a table, a JSON list of objects or CSV.

    A terminal that is too narrow for all columns of a table gets as many as fit, the `important` ones first. Texts are
    cut off, but for those of the columns `whole`, which go on in the next line.
    """
    if output == "json":
        print(frame.to_json(orient="records", force_ascii=False, indent=1, double_precision=15))
    elif output == "csv":
        print(frame.to_csv(index=False), end="")
    else:
        _print_rich(frame, title, important, whole)


def print_tables(tables: "Mapping[str, pd.DataFrame]", output: Format) -> None:
    """Print several titled tables; as JSON one object with a list of objects per title."""
    if output == "json":
        lists = {title: json.loads(frame.to_json(orient="records")) for title, frame in tables.items()}
        print(json.dumps(lists, ensure_ascii=False, indent=1))
        return
    for title, frame in tables.items():
        if output == "csv":
            print(f"# {title}")
        print_table(frame, output, title=title)


def print_wrapped(frame: "pd.DataFrame", *, title: str = "") -> None:
    """Print a table of sentences: its last columns are wrapped, nothing is cut off."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False)
    for name in frame.columns:
        short = frame[name].astype("str").str.len().max() <= SHORT_CELL if len(frame) else True
        table.add_column(str(name), no_wrap=bool(short), overflow="fold", ratio=None if short else 1)
    for row in frame.itertuples(index=False):
        table.add_row(*map(_words, row))
    _console(PAGE).print(table)


def table_text(frame: "pd.DataFrame") -> str:
    """`frame` as a table, for narration."""
    from rich.console import Console

    console = Console(width=WIDE, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(_rich_table(frame, ""))
    return captured.get().rstrip()


def _print_rich(frame: "pd.DataFrame", title: str, important: Sequence[str], whole: Sequence[str]) -> None:
    console = _console(WIDE)
    fitting = fitting_columns(frame, console.width, important, whole)
    console.print(_rich_table(frame[fitting], title, whole))
    if missing := [name for name in map(str, frame.columns) if name not in fitting]:
        say(f"for want of room without {', '.join(missing)}; --format csv has all")


def fitting_columns(
    frame: "pd.DataFrame", width: int, important: Sequence[str] = (), whole: Sequence[str] = ()
) -> list[str]:
    """The columns of a table so many characters wide: the important ones first, then the others, in their own order."""
    from rich.cells import cell_len

    names = [str(name) for name in frame.columns]
    room, chosen = width + SEPARATOR, list[str]()
    for name in dict.fromkeys((*(name for name in important if name in names), *names)):
        widest = max(cell_len(name), *(cell_len(_cell(value)) for value in frame[name]), 0)
        room -= (min(widest, SHORT_CELL) if name in whole else widest) + SEPARATOR
        if room < 0 and chosen:
            break
        chosen.append(name)
    return [name for name in names if name in chosen]


def _console(width: int) -> "Console":
    """Stdout: as wide as the terminal, or `width` where there is none; control codes where there is, or as asked for.

    NO_COLOR leaves colours out; FORCE_COLOR, unless it is 0 or empty, keeps them where there is no terminal.
    """
    from rich.console import Console

    forced = os.environ.get("FORCE_COLOR", "") not in ("", "0") and not no_colour()
    return Console(
        width=None if sys.stdout.isatty() else width,
        force_terminal=forced or sys.stdout.isatty(),
        no_color=no_colour(),
        markup=False,
        highlight=False,
    )


def _rich_table(frame: "pd.DataFrame", title: str, whole: Sequence[str] = ()) -> "Table":
    import pandas as pd
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False)
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(str(name), justify="right" if numeric else "left", no_wrap=name not in whole, overflow="fold")
    for row in frame.itertuples(index=False):
        cells = zip(frame.columns, row, strict=True)
        table.add_row(*(_words(value) if name in whole else _cell(value) for name, value in cells))
    return table


def _cell(value: object) -> str:
    text = _words(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _words(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"
    return str(value)


def say(text: str) -> None:
    """Print `text` on stderr, without secrets; not with ``--quiet``."""
    import click

    from pipelines.secrets import redacted

    if logging.getLogger("pipelines").level <= logging.INFO:
        click.echo(redacted(text), err=True)


class _Narration(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a bar that is drawn takes its place, and lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def narrate(*, quiet: bool, verbose: bool) -> None:
    """Send our log to stderr, without secrets, and keep the libraries' chatter out of it."""
    from pipelines.secrets import RedactingFormatter, redact_tracebacks

    level = logging.WARNING if quiet else logging.INFO
    handler = _Narration(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    redact_tracebacks()
    for package in ("competition", "oof", "submissions", "pipelines"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
