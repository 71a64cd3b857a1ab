"""Folds whose held-out rows share with their training side what test rows share with train.

Three things can stand on both sides: the language, the query (as written or in English) and the target. Test rows have
them in train at certain rates, folds by group have others: query groups hold out no language at all, category groups
no target that training knows. Here the rates are the plan. Labels are not looked at, but for even
shares of train's labels in all folds, as with every plan.

- **Language.** Every fold withholds some languages from its training. Of every language a share of rows is held out
  where it is withheld, the rest where it is not: the share of test rows in languages that train does not know. So each
  row is held out once, by models that know its language or do not.
- **Query.** Rows that share a query with held-out rows are withheld, save for as many held-out rows as test has with
  queries of train. Some queries are open for that: their rows are dealt one target at a time.
- **Target.** Of the targets that held-out rows share with training, the rarest in training are withheld until the rate
  is that of test: what a test file has new is what is rare.

A rate that the training rows do not have by themselves cannot be made: a competition in one language has no other to
withhold, and a target that stands in one row only is new wherever that row is held out. `match_table` says what came
of it. Not matched: which languages are new, and how rows are spread over the languages that train knows.
"""

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.errors import CompetitionError
from competition.folds import Dealt, FoldPlan, Mask, require_labels
from competition.language_folds import queries_in_language
from competition.leaks import shares_query
from competition.purging import QueryCodes
from competition.splitter import assign_groups
from competition.tasks import Task

KEYS = ("language", "query", "target")
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """The share of some rows, 0 to 1, whose language, query (as written or in English) or target others have too."""

    language: float
    query: float
    target: float


def overlap(rows: pd.DataFrame, train: pd.DataFrame) -> Overlap:
    """What `rows` share with `train`; labels are not looked at.

    Examples
    --------
    >>> columns = ["language", "query", "target"]
    >>> train = pd.DataFrame([["en", "red shoes", "shoes"], ["fr", "chat", "cats"]], columns=columns, dtype="str")
    >>> test = pd.DataFrame([["en", "Red Shoes", "boots"], ["de", "katze", "cats"]], columns=columns, dtype="str")
    >>> overlap(test, train)
    Overlap(language=0.5, query=0.5, target=0.5)
    """
    return Overlap(
        language=float(rows["language"].isin(train["language"]).mean()),
        query=float(shares_query(rows, train).mean()),
        target=float(rows["target"].isin(train["target"]).mean()),
    )


def match_rows(plan: FoldPlan, rows: pd.DataFrame, *, task: Task, like: pd.DataFrame) -> Dealt:
    """The folds of the labelled `rows`, matched to the rows of test (or dev) in `like`.

    Raises
    ------
    CompetitionError
        A row without a label, `like` without rows, fewer queries than folds, or a fold without both labels.
    """
    require_labels(rows)
    if like.empty:
        raise CompetitionError(f"{task.name}: there are no rows to match", advice="take another plan")
    wanted, rng = overlap(like, rows), np.random.default_rng(plan.seed)
    query, names = pd.factorize(queries_in_language(rows), sort=True)
    if len(names) < plan.n_splits:
        found = f"{len(names):,} queries make at most {len(names)} folds, {plan.n_splits} were asked for"
        raise CompetitionError(f"{task.name}: {found}", advice="take fewer folds")
    is_open = _open_rows(query, pd.factorize(rows["target"], sort=True)[0], rate=wanted.query, rng=rng)
    group = _groups(rows, is_open)
    homes = _homes(rows, plan, task, unseen=1 - wanted.language)
    fold = _deal(
        rows, pd.factorize(group, sort=True)[0], homes, plan=plan, task=task, unseen=1 - wanted.language, rng=rng
    )
    folds = pd.Series(fold, index=rows.index, name="fold")
    plan.require_both_labels(rows, folds, task=task, n_groups=group.nunique())
    return Dealt(folds, group, _withheld(rows, fold, homes, query, is_open, plan=plan, wanted=wanted, rng=rng))


def match_table(rows: pd.DataFrame, dealt: Dealt, *, like: pd.DataFrame) -> pd.DataFrame:
    """One line per key (language, query, target): wanted and achieved share, and the difference.

    Wanted is what `like` shares with all `rows`; achieved what held-out rows share with their training sides, over all
    folds. Any plan's folds can be held against it.
    """
    achieved = np.zeros(len(KEYS))
    for fold in np.unique(dealt.fold):
        held_out, trained = rows[(dealt.fold == fold).to_numpy()], rows[dealt.training(int(fold))]
        achieved += len(held_out) / len(rows) * np.array(astuple(overlap(held_out, trained)))
    table = pd.DataFrame({"key": KEYS, "wanted": astuple(overlap(like, rows)), "achieved": achieved})
    return table.assign(difference=table["achieved"] - table["wanted"])


def _open_rows(query: Codes, target: Codes, *, rate: float, rng: np.random.Generator) -> Mask:
    """Which rows are dealt one target at a time: queries with several targets, drawn up to a `rate` of all rows."""
    pairs = np.unique(np.column_stack([query, target]), axis=0)[:, 0]
    several = np.flatnonzero(np.bincount(pairs, minlength=query.max() + 1) > 1)
    return np.isin(query, _drawn(rng.permutation(several), np.bincount(query), rate * len(query)))


def _groups(rows: pd.DataFrame, is_open: Mask) -> pd.Series:
    """The query in its language; for open rows with the target behind it."""
    closed = queries_in_language(rows)
    return closed.where(~is_open, closed + " -> " + rows["target"]).rename("group")


def _homes(rows: pd.DataFrame, plan: FoldPlan, task: Task, *, unseen: float) -> Codes:
    """Per row the block of languages that it belongs to, ``(n_rows,)``; fold k withholds block k, modulo their number.

    All 0 where nothing is to be withheld.
    """
    codes, languages = pd.factorize(rows["language"], sort=True)
    if unseen == 0 or len(languages) == 1:
        return np.zeros(len(rows), dtype=np.int64)
    n_blocks = min(len(languages), plan.n_splits)
    strata, _ = pd.factorize(task.stratum(rows), sort=True)
    return assign_groups(codes, strata, n_splits=n_blocks, seed=plan.seed)[codes].astype(np.int64)


def _deal(
    rows: pd.DataFrame,
    group: Codes,
    homes: Codes,
    *,
    plan: FoldPlan,
    task: Task,
    unseen: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.int8]:
    """The fold of every row: `unseen` of each language where it is withheld, the rest where it is not."""
    n_blocks, every_fold = int(homes.max()) + 1, np.arange(plan.n_splits)
    is_unseen = _unseen_rows(rows["language"], group, rate=unseen, rng=rng)
    fold = np.zeros(len(rows), dtype=np.int8)
    for block in range(n_blocks):
        for chosen, withholds in ((is_unseen, True), (~is_unseen, False)):
            of = chosen & (homes == block)
            allowed = every_fold[(every_fold % n_blocks == block) == withholds] if n_blocks > 1 else every_fold
            if of.any():
                fold[of] = allowed[_even(rows[of], group[of], task=task, n_splits=len(allowed), seed=plan.seed)]
    return fold


def _unseen_rows(language: pd.Series, group: Codes, *, rate: float, rng: np.random.Generator) -> Mask:
    """Which rows are held out where their language is withheld: whole groups, about a `rate` of every language."""
    sizes, codes = np.bincount(group), pd.factorize(language, sort=True)[0]
    drawn = [
        _drawn(rng.permutation(np.unique(group[codes == each])), sizes, rate * np.count_nonzero(codes == each))
        for each in range(codes.max() + 1)
    ]
    return np.isin(group, np.concatenate(drawn))


def _even(rows: pd.DataFrame, group: Codes, *, task: Task, n_splits: int, seed: int) -> npt.NDArray[np.int8]:
    """A number 0 to `n_splits` - 1 for every row, the same for a group, strata spread evenly."""
    codes, strata = (
        np.unique(each, return_inverse=True)[1] for each in (group, task.stratum(rows).to_numpy(dtype=str))
    )
    return assign_groups(codes, strata, n_splits=n_splits, seed=seed)[codes]


def _withheld(
    rows: pd.DataFrame,
    fold: npt.NDArray[np.int8],
    homes: Codes,
    query: Codes,
    is_open: Mask,
    *,
    plan: FoldPlan,
    wanted: Overlap,
    rng: np.random.Generator,
) -> Mask:
    """Which rows each fold's training goes without, ``(n_rows, n_splits)``: languages, then queries, then targets."""
    texts, target = QueryCodes.of(rows), pd.factorize(rows["target"], sort=True)[0]
    n_blocks, columns = int(homes.max()) + 1, []
    for k in range(plan.n_splits):
        held_out = fold == k
        trained = ~held_out & ((homes != k % n_blocks) | (n_blocks == 1))
        trained &= ~_too_many_queries(
            texts, held_out, trained, query=query, is_open=is_open, rate=wanted.query, rng=rng
        )
        trained &= ~_too_many_targets(target, held_out, trained, rate=wanted.target, rng=rng)
        columns.append(~held_out & ~trained)
    return np.column_stack(columns)


def _too_many_queries(
    texts: QueryCodes,
    held_out: Mask,
    trained: Mask,
    *,
    query: Codes,
    is_open: Mask,
    rate: float,
    rng: np.random.Generator,
) -> Mask:
    """Training rows to withhold, so that no more than a `rate` of the held-out rows has a query in training.

    Queries that may stay on both sides are drawn, the open ones first.
    """
    shared = held_out & texts.sharing(trained)
    candidates = np.concatenate([rng.permutation(np.unique(query[shared & of])) for of in (is_open, ~is_open)])
    sizes = np.bincount(query[held_out], minlength=query.max() + 1)
    stay = np.isin(query, _drawn(candidates, sizes, rate * np.count_nonzero(held_out)))
    return trained & texts.sharing(held_out & ~stay)


def _too_many_targets(target: Codes, held_out: Mask, trained: Mask, *, rate: float, rng: np.random.Generator) -> Mask:
    """Training rows to withhold, so that no more than a `rate` of the held-out rows has a target in training."""
    in_training = np.bincount(target[trained], minlength=target.max() + 1)
    in_held_out = np.bincount(target[held_out], minlength=target.max() + 1)
    shared = rng.permutation(np.flatnonzero((in_training > 0) & (in_held_out > 0)))
    rarest_first = shared[np.argsort(in_training[shared], kind="stable")]
    excess = in_held_out[shared].sum() - rate * np.count_nonzero(held_out)
    return trained & np.isin(target, _drawn(rarest_first, in_held_out, excess))


def _drawn(candidates: Codes, sizes: Codes, n_rows: float) -> Codes:
    """The first of `candidates` that together have about `n_rows` rows: more by half of the last one at most."""
    own = sizes[candidates]
    return candidates[np.cumsum(own) - own / 2 < n_rows]
