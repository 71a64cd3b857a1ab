"""Extra training rows that keep their label: queries with typos or in another casing, shorter texts of a category.

Every extra row is a copy of one training row and names it (`parent`); it keeps that row's group, so it falls where its
parent falls. What happens to a row depends on the seed and the row's id alone, not on the other rows or their order.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.categories import levels

SHOWN = "shown_target"
"""Column with the text that stands for a row's target in model input; "" or absent: the target itself."""

ALPHABETS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC")
"""Scripts in which a dropped or doubled letter is a typo. Elsewhere (Thai, Hangul, Han, kana) a letter is a syllable
or a word, or takes marks along."""

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SHORTEST = 4  # letters of a word that may be misspelt: in a shorter one the meaning goes
N_TRIES = 10


def typo_noise(text: str, rng: Random, *, rate: float = 0.2) -> str:
    """`text` with typos in about that share of its words: a neighbouring key, a swap, a lost or a doubled letter.

    Words with digits (sizes, model codes), short words and words of scripts that are no alphabets stay as they are. The
    first letter stays: people mistype it least.

    Examples
    --------
    >>> typo_noise("wireless headphones wh-1000xm4", Random(1), rate=1.0)
    'wirelesd headphonees wh-1000xm4'
    >>> typo_noise("ワイヤレスヘッドホン", Random(1), rate=1.0)
    'ワイヤレスヘッドホン'
    """
    words = text.split(" ")
    return " ".join(_misspelt(word, rng) if rng.random() < rate and _is_alphabetic(word) else word for word in words)


def casing_noise(text: str, rng: Random) -> str:
    """`text` in upper case, lower case, with a capital at its beginning or at that of every word: not as it was.

    A text without capitals in its script stays as it is.

    Examples
    --------
    >>> casing_noise("red shoes", Random(0))
    'Red Shoes'
    """
    cases: Sequence[Callable[[str], str]] = (str.upper, str.lower, str.capitalize, _titled)
    others = sorted({case(text) for case in cases} - {text})
    return rng.choice(others) if others else text


def random_suffix(path: str, rng: Random) -> str:
    """The last levels of a category path, at least one and not all of them; a path of one level stays as it is.

    The label is that of the whole path, so this is another text for the same target, never another target: ``toys``
    alone may be a node of the tree, and the label is not about that node.

    Examples
    --------
    >>> random_suffix("home & garden,kitchen, dining & bar,cookware", Random(0))
    'cookware'
    """
    names = levels(path)
    return path if len(names) < 2 else ",".join(names[rng.randrange(1, len(names)) :])


def with_typos(rows: pd.DataFrame, *, share: float, rate: float, seed: int) -> pd.DataFrame:
    """Copies of about that share of the rows, whose queries (and translations) have typos; those unchanged left out."""
    return _noisy(rows, "typos", lambda text, rng: typo_noise(text, rng, rate=rate), share=share, seed=seed)


def with_casing(rows: pd.DataFrame, *, share: float, seed: int) -> pd.DataFrame:
    """Copies of about that share of the rows, whose queries (and translations) are cased otherwise.

    It teaches nothing where the cleaning preset lowers all texts before a model sees them.
    """
    return _noisy(rows, "casing", casing_noise, share=share, seed=seed)


def with_suffixes(rows: pd.DataFrame, *, share: float, seed: int) -> pd.DataFrame:
    """Copies of about that share of the rows, whose path is shown without its first levels (column `SHOWN`)."""
    chosen = rows[draws(rows["id"], "suffix", seed=seed) < share]
    shown = [
        random_suffix(path, row_random(key, "suffix text", seed=seed))
        for key, path in zip(chosen["id"], chosen["target"], strict=True)
    ]
    copies = chosen.assign(parent=chosen["id"], **{SHOWN: pd.Series(shown, index=chosen.index, dtype="str")})
    return copies[copies[SHOWN] != copies["target"]]


def with_extra(rows: pd.DataFrame, extra: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows, then the extra ones with ids of their own; `parent` is missing for rows that are not extra.

    Extra rows are ordered by parent, so that their ids do not depend on the order of `rows`. Of their columns `SHOWN`
    stays, and those that `rows` have.
    """
    added = pd.concat([frame.sort_values("parent", kind="stable") for frame in extra], ignore_index=True)
    parent = added["parent"].astype("Int64" if pd.api.types.is_integer_dtype(rows["id"]) else "str")
    added = added.assign(id=fresh_ids(rows["id"], len(added)), parent=parent)
    columns = [*rows, "parent", *([SHOWN] if SHOWN in added else [])]
    together = pd.concat([rows, added[columns]], ignore_index=True)[columns]
    if SHOWN in together:
        together[SHOWN] = together[SHOWN].fillna("").astype("str")
    return together.astype({name: dtype for name, dtype in rows.dtypes.items() if together[name].dtype != dtype})


def fresh_ids(ids: pd.Series, n: int) -> pd.Series:
    """`n` ids that no row has: numbers below all of them, or texts.

    Examples
    --------
    >>> fresh_ids(pd.Series([0, 7]), 2).tolist()
    [-1, -2]
    >>> fresh_ids(pd.Series(["a", "extra-0"]), 2).tolist()
    ['extra-1', 'extra-2']
    """
    if pd.api.types.is_integer_dtype(ids):
        return pd.Series(min(int(ids.min()) if len(ids) else 0, 0) - 1 - np.arange(n), dtype=ids.dtype)
    taken, start = set(ids), 0
    while any(f"extra-{i}" in taken for i in range(start, start + n)):
        start += 1
    return pd.Series([f"extra-{i}" for i in range(start, start + n)], dtype="str")


def draws(ids: pd.Series, purpose: str, *, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every id, ``(n_rows,)``: the same whatever else is there.

    Examples
    --------
    >>> bool((draws(pd.Series([1, 2]), "x", seed=0)[::-1] == draws(pd.Series([2, 1]), "x", seed=0)).all())
    True
    """
    words = [hashlib.blake2b(f"{seed}|{purpose}|{key}".encode(), digest_size=7).digest() for key in ids]
    return np.array([int.from_bytes(word) / 2**56 for word in words], dtype=np.float64)


def row_random(key: object, purpose: str, *, seed: int) -> Random:
    """The random numbers of one row for one purpose."""
    return Random(f"{seed}|{purpose}|{key}")


def _noisy(
    rows: pd.DataFrame, purpose: str, noise: Callable[[str, Random], str], *, share: float, seed: int
) -> pd.DataFrame:
    chosen = rows[draws(rows["id"], purpose, seed=seed) < share]
    columns = [name for name in ("query", "query_en") if name in rows]
    noisy = {
        name: pd.Series(
            [
                noise(text, row_random(key, f"{purpose} {name}", seed=seed))
                for key, text in zip(chosen["id"], chosen[name], strict=True)
            ],
            index=chosen.index,
            dtype="str",
        )
        for name in columns
    }
    changed = np.logical_or.reduce([noisy[name] != chosen[name] for name in columns])
    return chosen.assign(parent=chosen["id"], **noisy)[changed]


def _is_alphabetic(word: str) -> bool:
    return len(word) >= SHORTEST and all(
        unicodedata.name(letter, "").startswith(ALPHABETS) if letter.isalpha() else letter in "'-" for letter in word
    )


def _misspelt(word: str, rng: Random) -> str:
    """The word with one typo; after `N_TRIES` that changed nothing (a swap of equal letters) as it is."""
    for _ in range(N_TRIES):
        place, kind = rng.randrange(1, len(word)), rng.randrange(4)
        found = _TYPOS[kind](word, place, rng)
        if found != word:
            return found
    return word


def _neighbour_key(word: str, place: int, rng: Random) -> str:
    row = next((keys for keys in KEYBOARD if word[place] in keys), "")
    if not row:
        return word
    at = row.index(word[place])
    return word[:place] + rng.choice(row[max(at - 1, 0) : at] + row[at + 1 : at + 2]) + word[place + 1 :]


def _swapped(word: str, place: int, _rng: Random) -> str:
    return word[:place] + word[place : place + 2][::-1] + word[place + 2 :]


def _lost(word: str, place: int, _rng: Random) -> str:
    return word[:place] + word[place + 1 :]


def _doubled(word: str, place: int, _rng: Random) -> str:
    return word[: place + 1] + word[place:]


_TYPOS: tuple[Callable[[str, int, Random], str], ...] = (_neighbour_key, _swapped, _lost, _doubled)


def _titled(text: str) -> str:
    return " ".join(word[:1].upper() + word[1:].lower() for word in text.split(" "))
