"""Languages and scripts: codes as data files write them, the script of a text, the winner's ``unk`` label."""

import unicodedata
from collections import Counter
from functools import lru_cache

import pandas as pd

from competition.cleaning import map_distinct, normalise_query

ENGLISH = "en"
UNKNOWN = "unk"
OTHER = "other"  # the script of letters that have no name
ALIASES = {"vn": "vi", "jp": "ja", "kr": "ko", "cn": "zh", "br": "pt"}
"""What data files call a language -> its ISO 639-1 code."""

SCRIPTS = {
    "ja": frozenset({"kana", "han"}),
    "zh": frozenset({"han"}),
    "ko": frozenset({"hangul", "han"}),
    "th": frozenset({"thai"}),
    "ar": frozenset({"arabic"}),
    "fa": frozenset({"arabic"}),
    "he": frozenset({"hebrew"}),
    "el": frozenset({"greek"}),
    "hi": frozenset({"devanagari"}),
    "ru": frozenset({"cyrillic"}),
    "uk": frozenset({"cyrillic"}),
    "bg": frozenset({"cyrillic"}),
}
"""ISO code -> the scripts that the language is written in; a language that is not here is written in Latin letters."""

WITHOUT_SPACES = frozenset({"ja", "zh", "th"})
"""ISO codes of languages that put no space between words."""

_SCRIPT_OF_NAME = {"HIRAGANA": "kana", "KATAKANA": "kana", "KATAKANA-HIRAGANA": "kana", "CJK": "han"}


def iso_code(language: str) -> str:
    """The ISO 639-1 code of a language as data files call it.

    Examples
    --------
    >>> iso_code("vn"), iso_code("fr")
    ('vi', 'fr')
    """
    return ALIASES.get(language, language)


def own_scripts(language: str) -> frozenset[str]:
    """The scripts that a language (in either code) is written in.

    Examples
    --------
    >>> sorted(own_scripts("ja")), sorted(own_scripts("vn"))
    (['han', 'kana'], ['latin'])
    """
    return SCRIPTS.get(iso_code(language), frozenset({"latin"}))


@lru_cache(maxsize=1 << 16)
def _script_of_letter(letter: str) -> str:
    name = unicodedata.name(letter, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ").partition(" ")[0]
    return _SCRIPT_OF_NAME.get(name, name.lower()) or OTHER


def letters_by_script(text: str) -> Counter[str]:
    """How many letters of each script a text has.

    Examples
    --------
    >>> dict(letters_by_script("USB 掃除機 3"))
    {'latin': 3, 'han': 3}
    """
    return Counter(_script_of_letter(letter) for letter in text if letter.isalpha() and letter != "ー")


def script_of(text: str) -> str:
    """The script of most of a text's letters; of two as frequent, the first. "" without letters.

    Han and kana count together, and are kana as soon as one kana is there: Han alone may be Chinese or Japanese.

    Examples
    --------
    >>> [script_of(text) for text in ("red shoes", "掃除機の部品", "掃除機", "무선 usb", "42")]
    ['latin', 'kana', 'han', 'latin', '']
    """
    counts = letters_by_script(text)
    if counts["kana"]:
        counts["kana"] += counts.pop("han", 0)
    return max(counts, key=counts.__getitem__, default="") if counts.total() else ""


def scripts_of(texts: pd.Series) -> pd.Series:
    """The script of every text, ``(n_texts,)``; each different text is looked at once.

    Examples
    --------
    >>> scripts_of(pd.Series(["บ้าน", "house", "บ้าน"])).tolist()
    ['thai', 'latin', 'thai']
    """
    return map_distinct(texts, script_of)


def relabel_unknown(rows: pd.DataFrame) -> pd.Series:
    """The language of every row, ``unk`` where it says English and the translation to English is another text.

    Source: the cleaning of the CIKM 2025 AnalytiCup winner. It takes translations of the rows marked English too
    (``relstack translate --english``); rows without one keep their language.

    Parameters
    ----------
    rows
        With ``language, query, query_en``.

    Examples
    --------
    >>> texts = {"language": ["en", "en", "es"], "query": ["shoes", "zapatos", "bota"]}
    >>> rows = pd.DataFrame({**texts, "query_en": ["Shoes", "shoes", "boot"]})
    >>> relabel_unknown(rows).tolist()
    ['en', 'unk', 'es']
    """
    query, english = (map_distinct(rows[name], normalise_query) for name in ("query", "query_en"))
    foreign = (rows["language"] == ENGLISH) & (english != "") & (english != query)
    return rows["language"].where(~foreign, UNKNOWN)
