"""What tests know of report pages: a reader of their tables, made-up rows, texts that would like to be markup."""

import base64
import gzip
import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd

from pipelines.report.blocks import Cell, Note, Section, Table
from pipelines.report.browsing import Choice, Pool, choose_rows, packed
from pipelines.report.rendering import Browsed, Page

HOSTILE = (
    "</script><script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    '"><svg onload=document.title=`broken`>',
    "{{ 7 * 7 }} ${7 * 7} <b>bold</b> &amp; 'quoted'",
)


class Tables(HTMLParser):
    """The tables of a page by caption, each a list of rows of cell texts; and the text of the packed rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.packed, self._rows, self._text, self._is_packed = "", [], "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        self._is_packed = tag == "script" and dict(attributes).get("id") == "packed-rows"
        self._text = "" if tag in ("td", "th", "caption") else self._text

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._rows[-1].append(self._text.strip())
        elif tag == "caption":
            self.tables[self._text.strip()] = self._rows
        self._is_packed = False

    def handle_data(self, data: str) -> None:
        self._text += data
        self.packed += data if self._is_packed else ""

    def rows(self) -> list[dict[str, Any]]:
        """The packed rows of every task."""
        return unpacked(self.packed)


def unpacked(text: str) -> list[dict[str, Any]]:
    """What `packed` packed."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def made_up_pool(n_rows: int, *, task: str = "QC", seed: int = 0) -> Pool:
    """Rows with three models, the last of them chosen; some texts are hostile."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n_rows) < 0.6).astype(np.int8)
    scores = np.clip(0.15 + 0.7 * label[:, None] + rng.normal(0, 0.5, (n_rows, 3)), 0, 1)
    scores[:, 2] = scores.mean(axis=1)
    words = rng.integers(0, 3000, (n_rows, 3))
    rows = pd.DataFrame(
        {
            "id": np.arange(n_rows) + 1,
            "language": rng.choice(["en", "es", "fr", "ja"], n_rows),
            "fold": rng.choice(["0", "1", "2", "dev"], n_rows),
            "query": [f"query {a} word{b}" for a, b, _ in words],
            "query_en": [f"english {c}" for *_, c in words],
            "target": [f"home & garden,tools, parts & more {a},level {b},item {c}" for a, b, c in words],
            "label": label,
            "decision": (scores[:, 2] >= 0.5).astype(np.int8),
        }
    )
    rows.loc[: len(HOSTILE) - 1, "query"] = HOSTILE
    rows.loc[: len(HOSTILE) - 1, "target"] = HOSTILE[::-1]
    return Pool(task, rows, scores, ("lexical", HOSTILE[1], "blend"), 2, 2, 0.5)


def page_of(*pools: Pool, n_rows: int) -> Page:
    """A page on pools of rows, with hostile words wherever words can stand."""
    chosen: list[tuple[Pool, Choice]] = [
        (pool, choose_rows(pool, min(n_rows, len(pool.rows)), seed=0)) for pool in pools
    ]
    table = Table(HOSTILE[0], HOSTILE, (tuple(Cell(text) for text in HOSTILE),), (False,) * len(HOSTILE))
    section = Section("words", HOSTILE[1], HOSTILE[2], (table, Note(HOSTILE[3])))
    return Page(
        title=HOSTILE[0],
        facts=((HOSTILE[1], HOSTILE[2]),),
        tasks={pool.task: (section,) for pool in pools},
        bare=(),
        effort=Section("effort", "Time and memory", "", (Note("nothing measured"),)),
        browsed=tuple(Browsed(p.task, len(c.positions), len(p.rows), c.kinds) for p, c in chosen),
        rows=packed(chosen),
    )
