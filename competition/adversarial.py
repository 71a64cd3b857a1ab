"""Adversarial validation: can a classifier tell rows of train from rows of test (or dev), and by what?

An AUC of .5 says that the two files look alike; above that, the features say in what they differ. Given folds, a row of
train is looked at as it is held out: what it shares with the training side of its own fold stands against what a test
row shares with all of train, so that the AUC is about the folds. Labels are not looked at, of either file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.adversarial_features import TEXTS, Floats, Origin, hashed_words, row_features
from competition.cleaning import map_distinct, normalise_query
from competition.errors import CompetitionError, Fault
from competition.folds import Dealt
from competition.metrics import Interval, auc
from competition.splitter import assign_groups
from competition.tasks import Task

if TYPE_CHECKING:
    from scipy import sparse

N_SPLITS = 5
N_DRAWS = 200
LEVEL = 0.95
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Adversarial:
    """How well rows of another file can be told from rows of train.

    Attributes
    ----------
    auc
        Of cross-fitted scores: no row is scored by a classifier that saw its query. The interval is a bootstrap over
        queries.
    blocks
        One line per kind of feature, with the cross-fitted AUC of that kind alone: block, features, auc. "overlap" is
        what stands in train, "file" how often a text repeats in its own file, "form" lengths, scripts and levels.
    features
        The most telling first: block, feature, auc (of the feature alone, .5 to 1), train, other (its means). Words
        are not among them.
    words
        The most telling first: text (query or target), word, train, other (shares of rows that have it).
    languages
        One line per language that both files have, the most telling first: language, train, other (rows), auc (of
        the scores, between rows of that language alone).
    """

    auc: Interval
    blocks: pd.DataFrame
    features: pd.DataFrame
    words: pd.DataFrame
    languages: pd.DataFrame


def adversarial_validation(
    train: pd.DataFrame,
    other: pd.DataFrame,
    *,
    task: Task,
    dealt: Dealt | None = None,
    seed: int = 0,
    n_words: int = 20,
) -> Adversarial:
    """How well a logistic classifier of label-free features tells rows of `other` from rows of `train`.

    The features are the language, lengths, shares of scripts and digits, the depth of a category path, how many other
    rows of the same file have the query or the target and how many of train have, and hashed words of both texts.

    Parameters
    ----------
    dealt
        Folds of train: its rows are looked at as held-out ones. Without, as if each was held out alone. Folds that
        hold out languages are told from test by what is no fault of theirs (a language that test knows, and its
        words, beside a training side without it): for them the block "overlap" is the one to look at.

    Raises
    ------
    CompetitionError
        A file has fewer queries than are needed to cross-fit.
    """
    rows = pd.concat([train, other], ignore_index=True)
    origin = np.repeat(np.array([0, 1], dtype=np.int8), [len(train), len(other)])
    query = pd.factorize(map_distinct(rows["query"], normalise_query), sort=True)[0].astype(np.int64)
    _refuse_few(query, origin)
    dense = row_features(rows, origin, task=task, dealt=dealt)
    fold = assign_groups(query, origin, n_splits=N_SPLITS, seed=seed)[query]
    blocks: dict[str, sparse.csr_matrix | Floats] = {
        str(block): _standard(dense.loc[:, [block]]) for block in dense.columns.unique(level="block")
    }
    blocks["words"] = hashed_words(rows)
    scores = _cross_fitted(list(blocks.values()), origin, fold)
    return Adversarial(
        auc=auc_interval(origin, scores, query, seed=seed),
        blocks=_block_table(blocks, origin, fold),
        features=_feature_table(dense, origin),
        words=_word_table(rows, origin, n_words),
        languages=_language_table(rows["language"], origin, scores),
    )


def auc_interval(origin: Origin, scores: Floats, groups: Codes, *, seed: int = 0, n_draws: int = N_DRAWS) -> Interval:
    """AUC of `scores` with its bootstrap percentile interval over groups (codes 0 to n - 1).

    Examples
    --------
    >>> origin, scores = np.array([0, 0, 1, 1], dtype=np.int8), np.array([0.1, 0.4, 0.4, 0.9])
    >>> auc_interval(origin, scores, np.arange(4)).estimate
    0.875
    """
    distinct, places = np.unique(scores, return_inverse=True)
    rng, n_groups = np.random.default_rng(seed), int(groups.max()) + 1
    draws = []
    for _ in range(n_draws):
        weight = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)[groups].astype(np.float64)
        below, above = (np.bincount(places, weight * (origin == side), minlength=len(distinct)) for side in (0, 1))
        if below.sum() and above.sum():
            wins = above @ (np.cumsum(below) - below / 2)
            draws.append(wins / (below.sum() * above.sum()))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(auc(origin, scores), float(low), float(high), float(np.std(draws, ddof=1)))


def _standard(dense: pd.DataFrame) -> Floats:
    """Every feature with mean 0 and standard deviation 1; a constant one is 0."""
    values = dense.to_numpy(dtype=np.float64)
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _cross_fitted(blocks: "Sequence[sparse.csr_matrix | Floats]", origin: Origin, fold: npt.NDArray[np.int8]) -> Floats:
    """The probability of the other file, ``(n_rows,)``, by a classifier fitted without the row's fold."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    features = sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(block) for block in blocks]))
    scores = np.zeros(len(origin))
    for k in range(N_SPLITS):
        held_out = fold == k
        model = LogisticRegression(max_iter=200, tol=1e-3).fit(features[~held_out], origin[~held_out])
        scores[held_out] = model.predict_proba(features[held_out])[:, 1]
    return scores


def _block_table(
    blocks: "Mapping[str, sparse.csr_matrix | Floats]", origin: Origin, fold: npt.NDArray[np.int8]
) -> pd.DataFrame:
    lines = [
        {"block": name, "features": block.shape[1], "auc": auc(origin, _cross_fitted([block], origin, fold))}
        for name, block in blocks.items()
    ]
    return pd.DataFrame(lines).sort_values("auc", ascending=False, kind="stable", ignore_index=True)


def _feature_table(dense: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    alone = np.array([auc(origin, dense[name]) for name in dense])
    table = pd.DataFrame(
        {
            "block": dense.columns.get_level_values("block"),
            "feature": dense.columns.get_level_values("feature"),
            "auc": np.maximum(alone, 1 - alone),
            "train": dense[origin == 0].mean().to_numpy(),
            "other": dense[origin == 1].mean().to_numpy(),
        }
    )
    return table.sort_values("auc", ascending=False, kind="stable", ignore_index=True)


def _word_table(rows: pd.DataFrame, origin: Origin, n_words: int) -> pd.DataFrame:
    """The words whose shares of rows differ most, in standard errors of a difference of two shares."""
    from sklearn.feature_extraction.text import CountVectorizer

    tables = []
    for name in TEXTS:
        codes, distinct = pd.factorize(rows[name])
        counting = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b")
        found = counting.fit_transform(distinct.tolist())
        n_rows = [np.bincount(codes[origin == side], minlength=len(distinct)) for side in (0, 1)]
        shares = [np.asarray(found.T @ counts, dtype=np.float64) / counts.sum() for counts in n_rows]
        columns = {"word": counting.get_feature_names_out(), "train": shares[0], "other": shares[1]}
        tables.append(pd.DataFrame({"text": name, **columns}))
    table = pd.concat(tables, ignore_index=True)
    n_other, n_all = int(origin.sum()), len(origin)
    pooled = (table["train"] * (n_all - n_other) + table["other"] * n_other) / n_all
    error = np.sqrt(pooled * (1 - pooled) * (1 / n_other + 1 / (n_all - n_other)))
    surprise = (table["other"] - table["train"]).abs() / np.maximum(error, 1e-12)
    first = np.argsort(-surprise.to_numpy(), kind="stable")[:n_words]
    return table.take(first).reset_index(drop=True)


def _language_table(language: pd.Series, origin: Origin, scores: Floats) -> pd.DataFrame:
    lines = []
    for code, places in language.groupby(language).indices.items():
        n_other = int(origin[places].sum())
        if 0 < n_other < len(places):
            area = auc(origin[places], scores[places])
            lines.append({"language": code, "train": len(places) - n_other, "other": n_other, "auc": area})
    table = pd.DataFrame(lines, columns=["language", "train", "other", "auc"])
    return table.sort_values("auc", ascending=False, kind="stable", ignore_index=True)


def _refuse_few(query: Codes, origin: Origin) -> None:
    faults = []
    for side, name in enumerate(("train", "the other file")):
        n_queries = len(np.unique(query[origin == side]))
        if n_queries < N_SPLITS:
            faults.append(Fault(name, f"{n_queries} queries", f"{N_SPLITS} or more"))
    if faults:
        raise CompetitionError(
            "these files cannot be told apart honestly",
            faults=faults,
            advice="leave that question out, or give files of more queries",
        )
