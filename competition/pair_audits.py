"""Audits of pairs: what repeats, what contradicts itself, and what one side of a split tells about the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from competition.cleaning import duplicate_report, map_distinct, normalise_query
from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.plan_choice import choose_plan
from competition.verdicts import N_PLACES, Audited, Level, Subject, Verdict, name_places

MANY_REPEATS = 0.01
MANY_SHARED = 0.05
NUMBERED_ANEW = 0.9  # so many ids of the smaller file stand in the other: both count from 1
PAIR = ["language", "query", "target"]
N_FOLDS = 5


def audit_repeats(subject: Subject) -> Audited:
    """Rows that repeat the pair of an earlier row of their file, where no label contradicts."""
    lines, places = [], []
    for split, rows in subject.rows.items():
        pair = _codes(rows[PAIR])
        repeats = rows.duplicated(PAIR).to_numpy() & ~_contradicted(rows, pair)[pair]
        found = subject.places(split, rows[repeats])
        counts = {key: value for key, value in vars(duplicate_report(rows)).items() if key.startswith("n_")}
        lines.append({"split": split, **counts, "where": name_places(found, limit=N_PLACES)})
        places += found
    n_rows = sum(map(len, subject.rows.values()))
    if not places:
        return Audited(Verdict("repeated pairs", "ok", f"none among {n_rows:,} rows"), pd.DataFrame(lines))
    level: Level = "warning" if len(places) > MANY_REPEATS * n_rows else "note"
    found_words = (
        f"rows that repeat the pair of an earlier row: {len(places):,} ({len(places) / n_rows:.2%}; {places[0]})"
    )
    advice = "they weigh double in training; fold plans by query keep them together"
    return Audited(Verdict("repeated pairs", level, found_words, advice), pd.DataFrame(lines))


def audit_conflicts(subject: Subject) -> Audited:
    """Pairs of train that have both labels."""
    rows = subject.rows["train"]
    pair = _codes(rows[PAIR])
    contradicted = _contradicted(rows, pair)
    n_pairs = int(contradicted.sum())
    if not n_pairs:
        return Audited(Verdict("conflicting labels", "ok", f"none among {len(contradicted):,} pairs of train"))
    listed = np.isin(pair, np.flatnonzero(contradicted)[:N_PLACES])
    table = pd.DataFrame(
        [
            {
                **group[PAIR].iloc[0],
                "rows": len(group),
                "positive": int(group["label"].sum()),
                "where": name_places(subject.places("train", group), limit=N_PLACES),
            }
            for _, group in rows[listed].groupby(pair[listed], sort=False)
        ]
    )
    first = name_places(subject.places("train", rows[pair == np.argmax(contradicted)]), limit=2)
    found = (
        f"pairs of train with both labels: {n_pairs:,} of {len(contradicted):,} "
        f"({int(contradicted[pair].sum()):,} rows; {first})"
    )
    advice = "nothing can get both right; keep them, or ask who labelled them"
    return Audited(Verdict("conflicting labels", "warning", found, advice), table)


def _codes(columns: pd.DataFrame) -> np.ndarray:
    """A number for every different row of `columns`, ``(n_rows,)``, from 0 in the order of first occurrence."""
    return columns.groupby(list(columns), sort=False, dropna=False).ngroup().to_numpy()


def _contradicted(rows: pd.DataFrame, pair: np.ndarray) -> np.ndarray:
    """Which pairs have both labels, bool ``(n_pairs,)``."""
    n_pairs = int(pair.max(initial=-1)) + 1
    known = rows["label"].notna().to_numpy()
    labels = rows["label"].fillna(0).to_numpy(dtype=np.int64)
    n_known = np.bincount(pair[known], minlength=n_pairs)
    n_positive = np.bincount(pair[known], weights=labels[known], minlength=n_pairs)
    return (n_positive > 0) & (n_positive < n_known)


# What one side tells about the other


def _normal(name: str, rows: pd.DataFrame) -> pd.Series:
    return map_distinct(rows[name], normalise_query)


def _pair(rows: pd.DataFrame) -> pd.Series:
    query, target = _normal("query", rows), _normal("target", rows)
    return (query + "\0" + target).where((query != "") & (target != ""), "")


KEYS: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
    "id": lambda rows: rows["id"].astype("str"),
    "query": partial(_normal, "query"),
    "query in English": partial(_normal, "query_en"),
    "target": partial(_normal, "target"),
    "pair": _pair,
}
"""Ways in which rows can give each other away; texts without differences of case, width and spaces. "" is no key."""


@dataclass(frozen=True)
class _Shared:
    """Rows of a split whose key stands in train; where the first of them and their partners stand."""

    key: str
    rows: int
    shared_rows: int
    keys: int
    unseen_keys: int
    where: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.shared_rows / self.rows if self.rows else 0.0

    def line(self) -> dict[str, object]:
        """Its line of the table."""
        where = name_places(self.where, limit=N_PLACES) + (", ..." if self.shared_rows > len(self.where) else "")
        counts = {name: value for name, value in vars(self).items() if name != "where"}
        return {**counts, "share": self.share, "where": where}


def audit_leaks(split: str, subject: Subject) -> Audited | None:
    """What `split` shares with train, for every key."""
    if split not in subject.rows:
        return None
    found = {name: _shared(name, split, subject) for name in KEYS}
    there = {name: shared for name, shared in found.items() if shared is not None}
    return Audited(
        _leak_verdict(split, there, n_train=len(subject.rows["train"])),
        pd.DataFrame([shared.line() for shared in there.values()]),
    )


def _shared(name: str, split: str, subject: Subject) -> _Shared | None:
    """What `split` shares with train by one key; None where one side has no such key."""
    train, other = subject.rows["train"], subject.rows[split]
    keys = pd.concat([KEYS[name](train), KEYS[name](other)], ignore_index=True)
    codes, _ = pd.factorize(keys.where(keys != ""))  # an empty key is -1
    ours, theirs = codes[: len(train)], codes[len(train) :]
    if ours.max(initial=-1) < 0 or theirs.max(initial=-1) < 0:
        return None
    lines = np.zeros(codes.max() + 2, dtype=np.int64)  # of the first row of train with the key; 0 where there is none
    lines[ours[::-1]] = train["line"].to_numpy()[::-1]  # of several rows the last to be written stays: the first
    lines[-1] = 0  # the place of those without a key
    shared = lines[theirs] > 0
    unseen = theirs[~shared & (theirs >= 0)]
    pairs = zip(subject.places(split, other[shared][:N_PLACES]), lines[theirs[shared]], strict=False)
    return _Shared(
        key=name,
        rows=len(other),
        shared_rows=int(shared.sum()),
        keys=len(np.unique(theirs[theirs >= 0])),
        unseen_keys=len(np.unique(unseen)),
        where=tuple(f"{place} = {subject.place('train', int(line))}" for place, line in pairs),
    )


def _leak_verdict(split: str, found: Mapping[str, _Shared], *, n_train: int) -> Verdict:
    worries, advice, ids, pairs = [], "", found["id"], found.get("pair")
    if pairs and pairs.shared_rows:
        worries.append(f"rows of {split} that stand in train too: {pairs.shared_rows:,} ({pairs.where[0]})")
        advice = f"a score on {split} flatters who has learnt them by heart"
    if 0 < ids.shared_rows < NUMBERED_ANEW * min(n_train, ids.rows):
        worries.append(f"ids of {split} that are ids of train too: {ids.shared_rows:,} ({ids.where[0]})")
        advice = advice or "each row should have an id of its own"
    shares = ", ".join(f"{name} {each.share:.1%}" for name, each in found.items() if name not in ("id", "pair"))
    words = "; ".join([*worries, f"rows whose key stands in train: {shares}"])
    return Verdict(f"what {split} shares with train", "warning" if worries else "ok", words, advice)


def audit_folds(subject: Subject) -> Audited:
    """What held-out rows share with their training side under the fold plan that ``--plan auto`` takes."""
    point, train = "what folds share", subject.rows["train"]
    kind, _ = choose_plan(subject.rows, subject.task)
    try:
        folds = FoldPlan(kind=kind, n_splits=N_FOLDS).assign(train, subject.task).to_numpy()
    except CompetitionError as error:  # too few groups, or labels: what `split` would say
        return Audited(Verdict(point, "warning", f"{kind} cannot deal {N_FOLDS} folds: {error.summary}", error.advice))
    table = pd.DataFrame([_fold_line(name, key(train), folds) for name, key in KEYS.items() if name != "id"])
    shares = table.set_index("key")["share"]
    words = ", ".join(f"{key} {share:.1%}" for key, share in shares.items())
    crossing = shares.reindex(["query in English", "pair"]).fillna(0.0)
    found = f"{N_FOLDS} folds by {kind}; share of held-out rows whose key stands on the training side: {words}"
    if crossing.max() <= MANY_SHARED:
        return Audited(Verdict(point, "note" if crossing.max() > 0 else "ok", found), table)
    advice = f"out-of-fold scores are flattered by the same {crossing.idxmax()} on both sides"
    return Audited(Verdict(point, "warning", found, advice), table)


def _fold_line(name: str, key: pd.Series, folds: np.ndarray) -> dict[str, object]:
    has_key = (key != "").to_numpy()
    codes, _ = pd.factorize(key[has_key])
    n_folds = pd.DataFrame({"key": codes, "fold": folds[has_key]}).drop_duplicates()["key"].value_counts()
    shared = int((n_folds.reindex(codes).to_numpy() > 1).sum())
    return {"key": name, "rows": len(key), "shared_rows": shared, "share": shared / len(key) if len(key) else 0.0}
