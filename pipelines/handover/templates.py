"""Texts made from the templates in ``templates/``: plain text, nothing escaped."""

from pathlib import Path
from typing import Any

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
    return world.get_template(template).render(**values)


def write_script(path: Path, text: str) -> None:
    """Write a program that the shell runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(0o755)
