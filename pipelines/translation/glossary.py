"""Glossary files: tab-separated, a column per language, a concept per line."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from competition.errors import CompetitionError, Fault
from competition.languages import iso_code
from competition.regular_files import refuse_irregular

LANGUAGE = re.compile("[a-z]{2,3}")


def read_glossaries(files: Sequence[Path]) -> dict[str, list[str]]:
    """ISO code -> the names of all concepts in that language, the files one after the other; "" where one is missing.

    Columns whose header is not a language code (two or three small letters) are left out.

    Raises
    ------
    CompetitionError
        A file is not there, not UTF-8, has fewer than two languages or lines of other lengths; all faults are named.
    """
    tables = []
    faults: list[Fault] = []
    for file in files:
        try:
            refuse_irregular(file)
            with file.open(encoding="utf-8-sig", newline="") as lines:
                tables.append(_read(lines, file.name, faults))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            faults.append(Fault(file.name, str(error), "a readable UTF-8 file"))
    if faults:
        raise CompetitionError(
            "the glossary cannot be used",
            faults=faults,
            advice="mend the lines named: tab-separated, a column per language, its codes in the first line",
        )
    languages = dict.fromkeys(language for table in tables for language in table)
    sizes = [max((len(names) for names in table.values()), default=0) for table in tables]
    return {
        language: [
            name
            for table, size in zip(tables, sizes, strict=True)
            for name in table.get(language, [""] * size)
        ]
        for language in languages
    }  # fmt: skip


def _read(file: IO[str], name: str, faults: list[Fault]) -> dict[str, list[str]]:
    lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    header: list[str] = next(lines, [])
    languages = {place: iso_code(cell) for place, cell in enumerate(header) if LANGUAGE.fullmatch(cell)}
    if len(set(languages.values())) < 2:
        faults.append(Fault(f"{name}:1", f"columns {', '.join(header) or 'none'}", "two language codes or more"))
        return {}
    table: dict[str, list[str]] = {language: [] for language in languages.values()}
    for cells in lines:
        if len(cells) != len(header):
            faults.append(Fault(f"{name}:{lines.line_num}", f"{len(cells)} cells", f"{len(header)}, as in line 1"))
            continue
        for place, language in languages.items():
            table[language].append(cells[place].strip())
    return table
