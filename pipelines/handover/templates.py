"""Texts made from the templates in ``templates/``: plain text, nothing escaped."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TEMPLATES = Path(__file__).parent / "templates"


def filled(template: str, **values: Any) -> str:
    """The text of a template with the values in place; an absent one is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    world = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    world.filters["table"] = markdown_table
    return world.get_template(template).render(**values)


def write_script(path: Path, text: str) -> None:
    """Write a program that the shell runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(0o755)


def markdown_table(table: pd.DataFrame) -> str:
    r"""A table as Markdown: fractions with four places, large numbers with separators, nothing for what is missing.

    Examples
    --------
    >>> print(markdown_table(pd.DataFrame({"name": ["a|b"], "f1": [0.5], "rows": [12000], "dev": [None]})))
    | name | f1 | rows | dev |
    |---|---|---|---|
    | a\|b | 0.5000 | 12,000 |  |
    """
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    head, rule, *body = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([head, rule.replace(" ", ""), *body])


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4f}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(str(value).replace("|", "\\|").split())
