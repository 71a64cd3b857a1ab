"""The translator that looks up: CSV files of translations, made by people or by another machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from competition.cleaning import normalise_query
from competition.languages import ENGLISH
from pipelines.prepare import read_translations
from pipelines.translation.protocol import NoFileError


@dataclass(frozen=True)
class Table:
    """Translations to English by (language, normalised query)."""

    digest: str
    translations: Mapping[tuple[str, str], str] = field(repr=False)

    @classmethod
    def read(cls, files: Sequence[Path]) -> "Table":
        """The files' translations; of several for one query the first counts.

        Raises
        ------
        CompetitionError
            `NoFileError`, or one is faulty.
        """
        if not files:
            raise NoFileError("a table of translations needs a file", advice="name it: --table FILE.csv")
        known: dict[tuple[str, str], str] = {}
        for file in files:
            rows = read_translations(file)
            for language, query, english in rows.itertuples(index=False):
                known.setdefault((language, query), english)
        return cls(digest_files(files), known)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        return {"kind": "table", "files": self.digest}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        if target != ENGLISH:
            return [""] * len(texts)
        return [self.translations.get((source, normalise_query(text)), "") for text in texts]


def digest_files(files: Sequence[Path]) -> str:
    """Sixteen hexadecimal digits of the files' content, in their order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
