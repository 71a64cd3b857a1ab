"""What a translator can do, and what it gets to work with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from competition.errors import CompetitionError


class NoFileError(CompetitionError):
    """A translator that is made of files was given none."""


class Translator(Protocol):
    """Translates texts one by one: what a text becomes depends on nothing but the text and the two languages."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Plain values that determine the translations: the cache is keyed by their digest."""
        ...

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """The translations in the order of `texts`, "" for each that it cannot translate.

        Parameters
        ----------
        source, target
            Languages as data files call them: ``en``, ``pt``, ``vn``.
        """
        ...


@dataclass(frozen=True)
class Resources:
    """What a recipe needs from outside.

    Attributes
    ----------
    tables
        CSV files of translations, for `kind` table.
    glossaries
        TSV files with a column per language, for `kind` dictionary.
    threads
        CPU threads that a translator may use.
    device
        ``cpu``, ``cuda``, ``cuda:1``, or ``auto``.
    """

    tables: tuple[Path, ...] = ()
    glossaries: tuple[Path, ...] = ()
    threads: int = 1
    device: str = "auto"
