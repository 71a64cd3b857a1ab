"""Label-free features of rows for adversarial validation: what stands in train, how texts look, their words."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.categories import levels
from competition.folds import Dealt
from competition.tasks import Task

if TYPE_CHECKING:
    from scipy import sparse

SCRIPTS = {
    "latin": ("LATIN",),
    "east asian": ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"),
    "arabic": ("ARABIC",),
    "thai": ("THAI",),
    "cyrillic": ("CYRILLIC",),
}
N_HASHED = 2**14
TEXTS = ("query", "target")

Floats = npt.NDArray[np.float64]
Origin = npt.NDArray[np.int8]


def row_features(rows: pd.DataFrame, origin: Origin, *, task: Task, dealt: Dealt | None = None) -> pd.DataFrame:
    """Label-free numbers of every row, ``(n_rows, n_features)``; `origin` is 0 for rows of train, then 1 for others.

    The columns have two levels, block and feature. What stands in train is for a row of train what stands in its
    fold's training side (`dealt`), scaled to the size of train; without folds it is all rows but itself.
    """
    table: dict[tuple[str, str], Floats] = {}
    for code in sorted(rows["language"].unique()):
        table["language", code] = (rows["language"] == code).to_numpy(dtype=np.float64)
    known = _rows_in_train(pd.factorize(rows["language"])[0], origin, dealt)
    table["overlap", "language: stands in train"] = (known > 0).astype(np.float64)
    for name in TEXTS:
        codes, distinct = pd.factorize(rows[name])
        table |= {
            ("form", f"{name}: {key}"): values[codes] for key, values in _text_features(distinct.tolist()).items()
        }
        own = [np.bincount(codes[origin == side], minlength=len(distinct)) for side in (0, 1)]
        in_train = _rows_in_train(codes, origin, dealt)
        table["overlap", f"{name}: stands in train"] = (in_train > 0).astype(np.float64)
        table["overlap", f"{name}: rows of train with it"] = np.log1p(in_train)
        table["file", f"{name}: other rows of the file with it"] = np.log1p(
            np.where(origin, own[1][codes], own[0][codes]) - 1
        )
    if task.target_is_category:
        codes, distinct = pd.factorize(rows["target"])
        table["form", "target: levels"] = np.array([len(levels(path)) for path in distinct], dtype=np.float64)[codes]
    return pd.DataFrame(table).rename_axis(columns=["block", "feature"])


def hashed_words(rows: pd.DataFrame) -> "sparse.csr_matrix":
    """Words and pairs of words of both texts, hashed apart, ``(n_rows, 2 * N_HASHED)``."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=N_HASHED, ngram_range=(1, 2), alternate_sign=False)
    blocks = []
    for name in TEXTS:
        codes, distinct = pd.factorize(rows[name])
        blocks.append(hashing.transform(distinct.tolist())[codes])
    return sparse.csr_matrix(sparse.hstack(blocks))


def _rows_in_train(codes: npt.NDArray[np.integer], origin: Origin, dealt: Dealt | None) -> Floats:
    """Per row how many rows that train a model for it have its code, ``(n_rows,)``."""
    in_train, n_codes = codes[origin == 0], int(codes.max()) + 1
    counts: Floats = np.bincount(in_train, minlength=n_codes)[codes] - (origin == 0).astype(np.float64)
    if dealt is None:
        return counts
    fold, own = dealt.fold.to_numpy(), np.zeros(len(in_train))
    for k in np.unique(fold):
        trained = dealt.training(int(k))
        found = np.bincount(in_train[trained], minlength=n_codes) * (len(in_train) / trained.sum())
        own[fold == k] = found[in_train[fold == k]]
    counts[origin == 0] = own
    return counts


def _text_features(texts: Sequence[str]) -> dict[str, Floats]:
    """Lengths and shares of scripts of distinct texts, ``(n_texts,)`` each."""
    n_letters = np.array([max(len(text), 1) for text in texts], dtype=np.float64)
    counts = np.array([_scripts(text) for text in texts], dtype=np.float64).reshape(len(texts), len(SCRIPTS) + 1)
    names = [*(f"share of {script} letters" for script in SCRIPTS), "share of digits"]
    return {
        "characters": np.log1p([len(text) for text in texts]),
        "words": np.log1p([len(text.split()) for text in texts]),
        **dict(zip(names, (counts / n_letters[:, None]).T, strict=True)),
    }


def _scripts(text: str) -> list[int]:
    """Characters of every script, then digits."""
    kinds = [_kind(letter) for letter in text]
    return [kinds.count(kind) for kind in range(len(SCRIPTS) + 1)]


@cache
def _kind(letter: str) -> int:
    """The place of a letter's script in `SCRIPTS`, behind them that of digits, -1 for all else."""
    if letter.isdigit():
        return len(SCRIPTS)
    name = unicodedata.name(letter, "") if letter.isalpha() else ""
    return next((place for place, words in enumerate(SCRIPTS.values()) if name.startswith(words)), -1)
