"""Which language a short query is in: by its script where that says it, else by an installed detector."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import pandas as pd

from competition.errors import CompetitionError
from competition.languages import UNKNOWN, iso_code, own_scripts, script_of, scripts_of

Engine = Literal["lingua", "langid"]

SURE_BY_CHARACTERS = 0.95

Detect = Callable[[list[str], Sequence[str]], list[tuple[str, float]]]
"""``(texts, ISO codes to choose from) -> (ISO code, confidence)`` of every text."""


def identify(texts: pd.Series, languages: Sequence[str], *, engine: Engine = "lingua") -> pd.DataFrame:
    """The language of every text, among some, and how sure that is; each different text is looked at once.

    Where one language alone is written in the text's script, it is that one. Detectors call Japanese without kana
    Chinese; where both can be chosen, the characters decide (see `japanese_or_chinese`), and where they do not, the
    detector does, its confidence halved. A text without letters is ``unk``.

    Parameters
    ----------
    languages
        Those that the competition has, as its files call them; the answer is one of them.

    Returns
    -------
    DataFrame
        ``language``, ``confidence`` (0 to 1), with the index of `texts`.

    Raises
    ------
    CompetitionError
        The detector is not installed.
    """
    codes, distinct = pd.factorize(texts)
    names = {iso_code(language): language for language in languages}
    answers = [_by_script(text, names) for text in distinct]
    by_script: dict[str, list[int]] = {}
    for place, (text, answer) in enumerate(zip(distinct, answers, strict=True)):
        if answer is None:
            by_script.setdefault(script_of(text), []).append(place)
    for script, places in by_script.items():
        choice = candidates(script, list(names))
        doubt = 0.5 if script == "han" and "ja" in choice else 1.0
        found = DETECTORS[engine]([distinct[place] for place in places], choice)
        for place, (code, confidence) in zip(places, found, strict=True):
            answers[place] = names[code], confidence * doubt
    table = pd.DataFrame(answers, columns=["language", "confidence"])
    return table.take(codes).set_axis(texts.index)


def candidates(script: str, codes: Sequence[str]) -> list[str]:
    """The ISO codes of the languages that are written in a script; all if none is.

    Examples
    --------
    >>> candidates("han", ["en", "ja", "zh"])
    ['ja', 'zh']
    """
    return [code for code in codes if script in own_scripts(code)] or list(codes)


def _by_script(text: str, names: Mapping[str, str]) -> tuple[str, float] | None:
    """The answer where no detector is needed, else None."""
    script = script_of(text)
    if not script:
        return UNKNOWN, 0.0
    choice = candidates(script, list(names))
    if len(choice) == 1:
        return names[choice[0]], 1.0
    code = japanese_or_chinese(text) if script == "han" else None
    return (names[code], SURE_BY_CHARACTERS) if code in choice else None


def japanese_or_chinese(text: str) -> str | None:
    """``ja`` or ``zh`` for a text in Han, None if its characters are in use in both or in neither.

    Characters of the Japanese national set that simplified Chinese has not, or the other way round, give it away.
    Traditional Chinese looks Japanese this way.

    Examples
    --------
    >>> [japanese_or_chinese(text) for text in ("掃除機", "吸尘器", "人形")]
    ['ja', 'zh', None]
    """
    japanese, chinese = _encodes(text, "shift_jis"), _encodes(text, "gb2312")
    return None if japanese == chinese else "ja" if japanese else "zh"


def _encodes(text: str, charset: str) -> bool:
    try:
        text.encode(charset)
    except UnicodeEncodeError:
        return False
    return True


def _lingua(texts: list[str], languages: Sequence[str]) -> list[tuple[str, float]]:
    detector = _lingua_detector(tuple(languages))
    best = [detector.compute_language_confidence_values(text)[0] for text in texts]
    return [(found.language.iso_code_639_1.name.lower(), float(found.value)) for found in best]


@lru_cache(maxsize=8)
def _lingua_detector(languages: tuple[str, ...]) -> Any:
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    except ImportError as error:
        raise _not_installed("lingua-language-detector") from error

    codes = [getattr(IsoCode639_1, code.upper()) for code in languages if hasattr(IsoCode639_1, code.upper())]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def _langid(texts: list[str], languages: Sequence[str]) -> list[tuple[str, float]]:
    identifier = _langid_identifier(tuple(languages))
    return [(str(code), float(sure)) for code, sure in map(identifier.classify, texts)]


@lru_cache(maxsize=8)
def _langid_identifier(languages: tuple[str, ...]) -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise _not_installed("py3langid") from error

    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(languages))
    return identifier


def _not_installed(package: str) -> CompetitionError:
    return CompetitionError(f"the package {package} is not installed", advice="pip install 'relstack[langid]'")


DETECTORS: Mapping[str, Detect] = {"lingua": _lingua, "langid": _langid}


def language_table(queries: pd.DataFrame, *, engine: Engine = "lingua") -> pd.DataFrame:
    """Per declared language: distinct queries, the share that is identified as it, what else the others seem, scripts.

    Parameters
    ----------
    queries
        ``language`` and ``text``, each distinct query once.
    """
    declared = sorted(queries["language"].unique())
    found = identify(queries["text"], declared, engine=engine)
    scripts = scripts_of(queries["text"])
    lines = []
    for language in declared:
        own = queries["language"] == language
        counts = found.loc[own, "language"].value_counts(normalize=True)
        others = counts.drop(language, errors="ignore")
        lines.append(
            {
                "language": language,
                "queries": int(own.sum()),
                "agree": float(counts.get(language, 0.0)),
                "confidence": float(found.loc[own, "confidence"].mean()),
                "others": ", ".join(f"{name} {share:.1%}" for name, share in others.head(3).items()),
                "scripts": ", ".join(
                    f"{name or 'none'} {share:.1%}"
                    for name, share in scripts[own].value_counts(normalize=True).head(3).items()
                ),
            }
        )
    return pd.DataFrame(lines)
