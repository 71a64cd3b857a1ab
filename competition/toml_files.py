"""TOML files that anybody may write: read, or said what is wrong with them."""

import re
import tomllib
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault
from competition.json_files import misfit
from competition.regular_files import read_bytes

MOST_BYTES = 2**20
DOTTED = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){40}""")
FORM = "mend the file; the recipes that come with relstack show the form"


def read_toml(path: Path, *, advice: str = FORM) -> dict[str, Any]:
    """The values of a TOML file; a CompetitionError with its name and line if it is not TOML."""
    try:
        return parse_toml(read_bytes(path, most=MOST_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CompetitionError(
            f"{path.name} is not a readable TOML file",
            faults=[Fault(path.name, str(error)[:300])],
            advice=advice,
        ) from error


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises
    ------
    ValueError
        It is none, or is nested so deep that nothing could be done with it.
    """
    if DOTTED.search(text):  # tomllib takes quadratic time and memory for them
        raise ValueError("a key has too many dots")
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("the values are nested too deep") from error
    if found := misfit(values):
        raise ValueError(found)
    return values
