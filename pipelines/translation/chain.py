"""The translator made of translators: each text is the first's that has a translation of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.translation.protocol import Translator


@dataclass(frozen=True)
class Chain:
    """Translators by name, asked in an order that may depend on the language that is not English.

    Attributes
    ----------
    translators
        All that are in use, by name.
    steps
        The usual order.
    languages
        The order for single languages.
    """

    translators: Mapping[str, Translator]
    steps: tuple[str, ...]
    languages: Mapping[str, tuple[str, ...]]

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        parts = {name: dict(translator.identity) for name, translator in self.translators.items()}
        orders = {language: list(steps) for language, steps in self.languages.items()}
        return {"kind": "chain", "steps": list(self.steps), "languages": orders, "parts": parts}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        answers = [""] * len(texts)
        steps = self.languages.get(source) or self.languages.get(target) or self.steps
        for name in steps:
            open_places = [place for place, answer in enumerate(answers) if not answer]
            if not open_places:
                break
            asked = [texts[place] for place in open_places]
            found = self.translators[name].translate(asked, source=source, target=target)
            for place, answer in zip(open_places, found, strict=True):
                answers[place] = answer
        return answers
