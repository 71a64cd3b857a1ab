"""Languages and their families, as units of folds that are held out whole."""

import pandas as pd

from competition.cleaning import map_distinct, normalise_query

FAMILIES = {
    "Arabic and Hebrew": ("ar", "he", "iw"),
    "Baltic": ("lt", "lv"),
    "Germanic": ("af", "da", "de", "en", "is", "nb", "nl", "nn", "no", "sv"),
    "Indo-Aryan": ("bn", "gu", "hi", "mr", "ne", "pa", "ur"),
    "Malayic": ("id", "in", "ms"),
    "Romance": ("ca", "es", "fr", "gl", "it", "pt", "ro"),
    "Slavic": ("be", "bg", "cs", "hr", "mk", "pl", "ru", "sk", "sl", "sr", "uk"),
    "Turkic": ("az", "kk", "tr", "uz"),
    "Uralic": ("et", "fi", "hu"),
    "Vietnamese": ("vi", "vn"),
}
"""Family -> language codes, branches near enough for one language to help another; any other code is alone."""

FAMILY_OF = {code: family for family, codes in FAMILIES.items() for code in codes}


def family(language: str) -> str:
    """The family of a language code; a code that is in no family is one by itself.

    Examples
    --------
    >>> family("pt"), family("PT-br"), family("ja")
    ('Romance', 'Romance', 'ja')
    """
    code = language.lower().replace("_", "-").partition("-")[0]
    return FAMILY_OF.get(code, code)


def families(rows: pd.DataFrame) -> pd.Series:
    """The language family of every row, ``(n_rows,)`` text."""
    return map_distinct(rows["language"], family)


def queries_in_language(rows: pd.DataFrame) -> pd.Series:
    """The query of every row, normalised, with its language before it, ``(n_rows,)`` text."""
    return rows["language"] + ": " + map_distinct(rows["query"], normalise_query)
