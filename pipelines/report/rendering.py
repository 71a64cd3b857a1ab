"""From what a report says to one HTML page: style, script and rows inside it, nothing asked of any network."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.report.blocks import Block, Figure, Note, Section, Table
from pipelines.report.browsing import Kind

TEMPLATES = Path(__file__).parent / "templates"
BLOCKS: Mapping[type[Block], str] = {Table: "table", Figure: "figure", Note: "note"}


@dataclass(frozen=True)
class Browsed:
    """How many of a task's labelled rows the page takes along, and of which kinds."""

    task: str
    shown: int
    there: int
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Page:
    """All that a page says, before it is HTML.

    Attributes
    ----------
    facts
        Pairs of a word and what it is, for the head of the page.
    tasks
        Name -> its sections.
    bare
        Tasks of the run that have no base learner yet.
    rows
        The packed rows, see `browsing.packed`.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    tasks: Mapping[str, tuple[Section, ...]]
    bare: tuple[str, ...]
    effort: Section
    browsed: tuple[Browsed, ...]
    rows: str


def render(page: Page) -> str:
    """The HTML of a page.

    Every text is escaped. The policy in its head lets run this one script, by its digest, and load nothing at all:
    markup that slipped through could do neither.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    world = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters["slug"] = slug
    world.filters["kind"] = lambda block: BLOCKS[type(block)]
    style, script = (_read(name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return world.get_template("report.html.j2").render(page=page, style=style, script=script, digest=digest)


def slug(text: str) -> str:
    """A name as it can stand in an address.

    Examples
    --------
    >>> slug("QC"), slug("my task/2")
    ('QC', 'my-task-2')
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
