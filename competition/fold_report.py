"""What a fold plan did: counts per fold, and the leak audit (which texts stand on both sides of a split)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.categories import levels, prefix
from competition.cleaning import map_distinct, normalise_query
from competition.folds import Dealt, FoldPlan
from competition.tasks import Task

ALL_FOLDS = "all"
MAX_NAMED = 20  # unseen keys are named where there are no more of them

_Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FoldReport:
    """How even the folds are and what they share.

    Attributes
    ----------
    folds
        One line per fold: fold, rows, positives, positive_rate, groups, languages, and trained_on: the rows of the
        training side, which are all others but for what the plan withholds.
    languages
        One line per fold and language, those without rows included: fold, language, rows, positives.
    overlaps
        One line per key and fold, and per key over all folds (fold "all"): key, fold, rows (held out),
        shared_rows (of those, rows whose key also stands on the training side), share. An empty text is no
        key: it gives nothing away. The key "group" is the plan's own and must show 0. "query in English" is
        there if the rows have translations.
    imbalance
        Mean over strata of the standard deviation over folds of the stratum's share, 0 (even) to .5.
    """

    plan: FoldPlan
    folds: pd.DataFrame
    languages: pd.DataFrame
    overlaps: pd.DataFrame
    imbalance: float


@dataclass(frozen=True)
class _Key:
    """One way in which rows can give each other away. Code -1: the row's text is empty, there is no key."""

    name: str
    codes: _Codes
    texts: list[str]


def fold_report(rows: pd.DataFrame, dealt: Dealt, *, plan: FoldPlan, task: Task) -> FoldReport:
    """The report on what was `dealt`, aligned with the labelled `rows`."""
    assert dealt.fold.index.equals(rows.index), "folds and rows are not aligned"
    held_out = dealt.fold.to_numpy().astype(np.int64)
    codes, groups = pd.factorize(dealt.group)
    group = _Key("group", codes, list(groups))
    keys = [group, _key("language", rows["language"]), *_keys(rows, task)]
    trained_on = [int(dealt.training(fold).sum()) for fold in range(plan.n_splits)]
    return FoldReport(
        plan=plan,
        folds=_fold_table(rows, held_out, group=group, n_splits=plan.n_splits).assign(trained_on=trained_on),
        languages=_language_table(rows, held_out, n_splits=plan.n_splits),
        overlaps=pd.concat([_fold_overlaps(key, dealt, plan.n_splits) for key in keys], ignore_index=True),
        imbalance=imbalance(task.stratum(rows), dealt.fold),
    )


def compare_overlaps(report: FoldReport, rows: Mapping[str, pd.DataFrame], *, task: Task) -> pd.DataFrame:
    """What held-out rows share with their training side, beside what dev and test share with train.

    Parameters
    ----------
    rows
        Split -> rows, train among them.

    Returns
    -------
    Columns key, held_out (share of all held-out rows), and one share for dev and for test, if they are there; the
    plan's own groups have none.
    """
    own = report.overlaps[report.overlaps["fold"] == ALL_FOLDS].set_index("key")["share"]
    shares = {"held_out": own}
    for split in (each for each in ("dev", "test") if each in rows):
        shares[split] = split_overlaps(rows["train"], rows[split], task=task).set_index("key")["share"]
    return pd.DataFrame(shares).reindex(own.index).reset_index()


def imbalance(strata: pd.Series, folds: pd.Series) -> float:
    """Mean over strata of the standard deviation over folds of the share of the stratum that a fold holds.

    Examples
    --------
    >>> imbalance(pd.Series(["a", "a", "b", "b"]), pd.Series([0, 1, 0, 1]))
    0.0
    >>> imbalance(pd.Series(["a", "a", "b", "b"]), pd.Series([0, 0, 0, 1]))
    0.25
    """
    n_splits = int(folds.max()) + 1
    counts = _cross_count(pd.factorize(strata)[0], folds.to_numpy(), n_splits)
    return float((counts / counts.sum(axis=1, keepdims=True)).std(axis=1).mean())


def split_overlaps(train_rows: pd.DataFrame, other_rows: pd.DataFrame, *, task: Task) -> pd.DataFrame:
    """What dev or test shares with train, one line per key, the language first.

    Returns
    -------
    Columns key, rows (of the other split), shared_rows (of those, rows whose key is in train too), share,
    keys (distinct, in the other split), unseen_keys (of those, not in train), unseen (their names, most rows
    first, where there are at most `MAX_NAMED`).
    """
    columns = [
        name for name in ("language", "query", "target", "query_en") if name in train_rows and name in other_rows
    ]
    both = pd.concat([train_rows[columns], other_rows[columns]], ignore_index=True)
    keys = [_key("language", both["language"]), *_keys(both, task)]
    return pd.DataFrame([_split_overlap(key, len(train_rows)) for key in keys])


def _split_overlap(key: _Key, n_train: int) -> dict[str, object]:
    # one place more than there are texts: code -1 falls into the first, which is cut off
    in_train, in_other = (
        np.bincount(codes + 1, minlength=len(key.texts) + 1)[1:] for codes in np.split(key.codes, [n_train])
    )
    shared, unseen = int(in_other[in_train > 0].sum()), np.flatnonzero((in_other > 0) & (in_train == 0))
    unseen = unseen[np.argsort(-in_other[unseen], kind="stable")]
    n_rows = len(key.codes) - n_train
    return {
        "key": key.name,
        "rows": n_rows,
        "shared_rows": shared,
        "share": shared / n_rows if n_rows else 0.0,
        "keys": int((in_other > 0).sum()),
        "unseen_keys": len(unseen),
        "unseen": "; ".join(key.texts[code] for code in unseen) if len(unseen) <= MAX_NAMED else "",
    }


def _keys(rows: pd.DataFrame, task: Task) -> Iterator[_Key]:
    """The keys of the leak audit, as they are in `rows`; built one at a time."""
    query = rows["query"]
    yield _key("query in its language", (rows["language"] + ": " + query).where(query != "", ""))
    yield _key("query normalised", map_distinct(query, normalise_query))
    if "query_en" in rows and (rows["query_en"] != "").any():
        yield _key("query in English", map_distinct(rows["query_en"], normalise_query))
    target = _key("target", rows["target"])
    yield target
    if task.target_is_category:
        deepest = max((len(levels(path)) for path in target.texts), default=0)
        for depth in range(1, deepest + 1):
            yield _category_key(target, depth)


def _key(name: str, texts: pd.Series) -> _Key:
    codes, distinct = pd.factorize(texts.where(texts != ""))
    return _Key(name, codes.astype(np.int64), list(distinct))


def _category_key(target: _Key, depth: int) -> _Key:
    codes, distinct = pd.factorize(np.array([prefix(path, depth) for path in target.texts], dtype=object))
    codes = np.append(codes, -1)[target.codes]
    return _Key(f"category to level {depth}", codes.astype(np.int64), list(distinct))


def _cross_count(codes: _Codes, folds: _Codes, n_splits: int) -> _Codes:
    """Rows per code and fold, ``(n_codes, n_splits)``."""
    n_codes = int(codes.max(initial=-1)) + 1
    return np.bincount(codes * n_splits + folds, minlength=n_codes * n_splits).reshape(n_codes, n_splits)


def _fold_overlaps(key: _Key, dealt: Dealt, n_splits: int) -> pd.DataFrame:
    folds, n_codes = dealt.fold.to_numpy(), len(key.texts)
    shared, n_rows = np.zeros(n_splits, dtype=np.int64), np.bincount(folds, minlength=n_splits)
    for fold in range(n_splits):  # one place more than there are texts: code -1 falls into the first, which is cut off
        held_out, trained = (
            np.bincount(key.codes[rows] + 1, minlength=n_codes + 1)[1:]
            for rows in (folds == fold, dealt.training(fold))
        )
        shared[fold] = held_out[trained > 0].sum()
    table = pd.DataFrame(
        {
            "key": key.name,
            "fold": [*map(str, range(n_splits)), ALL_FOLDS],
            "rows": np.append(n_rows, n_rows.sum()),
            "shared_rows": np.append(shared, shared.sum()),
        }
    )
    return table.assign(share=table["shared_rows"] / table["rows"])


def _fold_table(rows: pd.DataFrame, folds: _Codes, *, group: _Key, n_splits: int) -> pd.DataFrame:
    n_rows = np.bincount(folds, minlength=n_splits)
    positives = np.bincount(folds[_is_positive(rows)], minlength=n_splits)
    languages = _cross_count(pd.factorize(rows["language"])[0], folds, n_splits)
    groups = _cross_count(group.codes, folds, n_splits)
    return pd.DataFrame(
        {
            "fold": np.arange(n_splits),
            "rows": n_rows,
            "positives": positives,
            "positive_rate": positives / n_rows,
            "groups": (groups > 0).sum(axis=0),
            "languages": (languages > 0).sum(axis=0),
        }
    )


def _language_table(rows: pd.DataFrame, folds: _Codes, *, n_splits: int) -> pd.DataFrame:
    codes, languages = pd.factorize(rows["language"], sort=True)
    positive = _is_positive(rows)
    n_rows = _cross_count(codes, folds, n_splits)
    positives = np.bincount(codes[positive] * n_splits + folds[positive], minlength=n_rows.size)
    return pd.DataFrame(
        {
            "fold": np.repeat(np.arange(n_splits), len(languages)),
            "language": np.tile(languages, n_splits),
            "rows": n_rows.T.ravel(),
            "positives": positives.reshape(n_rows.shape).T.ravel(),
        }
    )


def _is_positive(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return (rows["label"] == 1).fillna(False).to_numpy(dtype=bool)
