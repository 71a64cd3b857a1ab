"""Which texts need no translation: English, numbers, model codes, Latin words in a language of another script."""

import re

from competition.languages import ENGLISH, iso_code, letters_by_script, own_scripts

PART = re.compile(r"[^\W_]+")
LONGEST_AFFIX = 3  # letters without digits in a model code, such as wh in wh-1000xm4; drucker in 3d-drucker is a word


def passes_through(text: str, *, source: str, target: str) -> bool:
    """Whether a text stays as it is from one language to another.

    Examples
    --------
    >>> passes_through("red shoes", source="en", target="en")
    True
    >>> passes_through("wh-1000xm4", source="de", target="en")
    True
    >>> passes_through("gps garmin", source="ja", target="en")
    True
    >>> passes_through("zapatos", source="es", target="en")
    False
    """
    if iso_code(source) == iso_code(target) or all(is_code(word) for word in text.split()):
        return True
    return target == ENGLISH and not own_scripts(source) & {*letters_by_script(text), "latin"}


def is_code(word: str) -> bool:
    """Whether a word is a number, a size or a model code: no letters at all, or Latin letters with digits.

    Examples
    --------
    >>> [is_code(word) for word in ("42", "5,5mm", "wh-1000xm4", "&", "shoes", "3d-drucker", "2단")]
    [True, True, True, True, False, False, False]
    """
    if not any(letter.isalpha() for letter in word):
        return True
    if not word.isascii() or not any(letter.isdigit() for letter in word):
        return False
    return all(len(part) <= LONGEST_AFFIX for part in PART.findall(word) if part.isalpha())
