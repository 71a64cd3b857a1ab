"""Audits of shift: languages, categories and labels, and whether train has them in the shares of the judged split.

Rows of one query share its language and its category, so intervals count distinct queries, not rows.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.adversarial import adversarial_validation
from competition.categories import prefix, top_level
from competition.cleaning import map_distinct
from competition.dealing import deal
from competition.errors import CompetitionError
from competition.folds import FoldPlan
from competition.plan_choice import choose_plan
from competition.verdicts import Audited, Level, Subject, Verdict

Z = 1.96  # 95 %
MUCH_UNSEEN = 0.05
MUCH_SHIFT = 0.1
PRIOR_RANGE = 0.1
N_NAMED = 8
FEW_QUERIES = 30
MANY_QUERIES = 20_000
TOLD_APART = 0.6
N_FEATURES = 15

Floats = npt.NDArray[np.float64]


def wilson(positives: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The bounds of Wilson's 95 % interval around a share (Wilson 1927); (0, 1) where there is nothing.

    Examples
    --------
    >>> low, high = wilson([8, 0], [10, 0])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.49, 0.0], [0.943, 1.0])
    """
    n = np.asarray(n, dtype=np.float64)
    safe = np.maximum(n, 1e-9)
    share = np.asarray(positives) / safe
    centre = (share + Z**2 / (2 * safe)) / (1 + Z**2 / safe)
    half = Z / (1 + Z**2 / safe) * np.sqrt(share * (1 - share) / safe + Z**2 / (4 * safe**2))
    return np.where(n > 0, np.maximum(centre - half, 0.0), 0.0), np.where(n > 0, np.minimum(centre + half, 1.0), 1.0)


def shares(train: pd.Series, other: pd.Series, *, n_train: int, n_other: int) -> pd.DataFrame:
    """Share of each value in train and in another split, and the difference with its 95 % interval.

    Parameters
    ----------
    train, other
        The values of all rows (texts).
    n_train, n_other
        How many independent draws stand behind them: distinct queries.

    Returns
    -------
    One line per value, the largest difference first: train, other, difference, low, high, certain (the interval,
    widened for the number of values by Bonferroni's rule of thumb, does not hold 0).
    """
    table = pd.DataFrame({"train": train.value_counts(), "other": other.value_counts()}).fillna(0.0)
    table = table.div(table.sum().clip(lower=1.0))
    table["difference"] = table["other"] - table["train"]
    variance = table["train"] * (1 - table["train"]) / max(n_train, 1)
    error = np.sqrt(variance + table["other"] * (1 - table["other"]) / max(n_other, 1))
    wide = np.sqrt(Z**2 + 2 * np.log(max(len(table), 1)))
    table["low"], table["high"] = table["difference"] - Z * error, table["difference"] + Z * error
    table["certain"] = table["difference"].abs() > wide * error
    return table.sort_values("difference", key=np.abs, ascending=False, kind="stable")


def _compare(subject: Subject, column: str, judged: str) -> pd.DataFrame:
    train, other = subject.rows["train"], subject.rows[judged]
    n_train, n_other = train["query"].nunique(), other["query"].nunique()
    values = (train[column], other[column]) if column == "language" else (_tops(train), _tops(other))
    return shares(*values, n_train=n_train, n_other=n_other)


def _tops(rows: pd.DataFrame) -> pd.Series:
    return map_distinct(rows["target"], top_level)


def audit_languages(subject: Subject) -> Audited:
    """The languages of every split, those that train lacks, and how far their shares differ."""
    point, judged = "rows per language", subject.judged
    counts = pd.DataFrame({split: rows["language"].value_counts() for split, rows in subject.rows.items()})
    counts = counts.fillna(0).astype("int64").rename_axis("language").reset_index()
    counts["in_train"] = counts["train"] > 0
    if judged is None:
        return Audited(Verdict(point, "ok", f"{len(counts)} languages in train; nothing to compare with"), counts)
    compared = _compare(subject, "language", judged).rename(columns={"other": judged}).add_suffix("_share")
    compared = compared.rename(columns={f"{name}_share": name for name in ("difference", "low", "high", "certain")})
    table = counts.merge(compared, left_on="language", right_index=True, how="left")
    unseen = counts[(counts["train"] == 0) & (counts[judged] > 0)]
    share = float(unseen[judged].sum() / max(counts[judged].sum(), 1))
    shift = float(table["difference"].abs().sum() / 2)
    n_there = int((counts[judged] > 0).sum())
    if len(unseen):
        names = ", ".join(unseen["language"][:N_NAMED]) + (", ..." if len(unseen) > N_NAMED else "")
        found = f"{len(unseen)} of {n_there} languages of {judged} are not in train ({names}): {share:.0%} of its rows"
        level: Level = "warning" if share > MUCH_UNSEEN else "note"
        return Audited(
            Verdict(point, level, found, "validate on held-out languages; translate into or out of them"), table
        )
    if table["certain"].any():
        first = table.iloc[int(table["difference"].abs().to_numpy().argmax())]
        level = "warning" if shift > MUCH_SHIFT else "note"
        found = (
            f"no unseen language, but {shift:.0%} of {judged} would have to change language to look like train; most: "
            f"{first['language']} {first['train_share']:.1%} in train, {first[f'{judged}_share']:.1%} in {judged}"
        )
        return Audited(Verdict(point, level, found, "weigh languages as the judged split has them"), table)
    return Audited(Verdict(point, "ok", f"{n_there} languages, all in train, in like shares"), table)


def audit_categories(subject: Subject) -> Audited | None:
    """Categories that train lacks, and how far the shares of top levels differ."""
    point, judged = "category shift", subject.judged
    if not subject.task.target_is_category or judged is None:
        return None
    known = set(subject.rows["train"]["target"])
    targets = subject.rows[judged]["target"]
    unseen = float((~targets.isin(known)).mean()) if len(targets) else 0.0
    parents = {prefix(path, 2) for path in known}
    unseen_parents = float((~map_distinct(targets, lambda path: prefix(path, 2)).isin(parents)).mean())
    table = _compare(subject, "target", judged).rename(columns={"other": judged}).rename_axis("top level").reset_index()
    shift = float(table["difference"].abs().sum() / 2)
    certain = int(table["certain"].sum())
    found = (
        f"{unseen:.1%} of the rows of {judged} have a category that train lacks ({unseen_parents:.1%} to level 2); "
        f"shares of top levels differ by {shift:.1%}, {certain} of {len(table)} beyond chance"
    )
    if unseen > MUCH_UNSEEN or (shift > MUCH_SHIFT and certain):
        return Audited(Verdict(point, "warning", found, "a plan by category shows what unseen categories cost"), table)
    return Audited(Verdict(point, "note" if unseen or certain else "ok", found), table)


def audit_priors(subject: Subject) -> Audited:
    """The share of positive labels per language of train, and whether languages differ beyond chance."""
    point, rows = "label prior per language", subject.rows["train"]
    positive = (rows["label"] == 1).to_numpy()
    table = pd.DataFrame({"language": rows["language"], "positive": positive, "query": rows["query"]})
    table = table.groupby("language", sort=True).agg(
        rows=("positive", "size"), positives=("positive", "sum"), queries=("query", "nunique")
    )
    rate = table["positives"] / table["rows"]
    low, high = wilson(table["positives"], table["rows"])
    table = table.assign(positive_rate=rate, low=low, high=high).reset_index()
    overall = float(positive.mean())
    wide = np.sqrt(Z**2 + 2 * np.log(max(len(table), 1))) / Z
    apart = (table["positive_rate"] - overall).abs() > wide * (table["high"] - table["low"]) / 2
    table["apart"] = apart & (table["queries"] >= FEW_QUERIES)
    spread = float(table["positive_rate"].max() - table["positive_rate"].min())
    rates = table["positive_rate"].to_numpy()
    first, last = table.iloc[int(rates.argmin())], table.iloc[int(rates.argmax())]
    found = (
        f"{overall:.1%} of train is positive, from {first['positive_rate']:.1%} ({first['language']}) "
        f"to {last['positive_rate']:.1%} ({last['language']})"
    )
    if not table["apart"].any():
        return Audited(Verdict(point, "ok", f"{found}: within chance"), table)
    far = table[table["apart"]].sort_values("positive_rate", key=lambda rates: -(rates - overall).abs())
    names = ", ".join(far["language"][:N_NAMED])
    level: Level = "warning" if spread > PRIOR_RANGE else "note"
    return Audited(
        Verdict(point, level, f"{found}; beyond chance: {names}", "cuts per language may earn something"), table
    )


def audit_adversarial(subject: Subject) -> Audited | None:
    """Whether a classifier of label-free features tells held-out rows of train from the judged split, and by what.

    They are held out as folds of the plan that ``--plan auto`` takes.
    """
    point, judged = "train or test", subject.judged
    if judged is None:
        return None
    train, other = (_some(subject.rows[split]) for split in ("train", judged))
    try:
        kind, _ = choose_plan(subject.rows, subject.task)
        dealt = deal(FoldPlan(kind), train, task=subject.task, like=other)
        found = adversarial_validation(train, other, task=subject.task, dealt=dealt)
    except CompetitionError as error:  # too few queries to cross-fit
        return Audited(Verdict(point, "ok", f"not asked: {error.summary}"))
    blocks = found.blocks.sort_values("auc", ascending=False)
    told = ", ".join(f"{block.block} {block.auc:.2f}" for block in blocks.head(3).itertuples())
    words = f"a classifier tells {judged} from rows held out by {kind} with AUC {found.auc} (by {told})"
    level: Level = "note" if found.auc.low > TOLD_APART else "ok"
    advice = (
        "--plan test-matched deals folds that look like it; relstack split shows how they do" if level == "note" else ""
    )
    return Audited(Verdict(point, level, words, advice), found.features.head(N_FEATURES))


def _some(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of at most `MANY_QUERIES` queries, drawn at random: enough to tell files apart."""
    queries = rows["query"].unique()
    if len(queries) <= MANY_QUERIES:
        return rows
    return rows[rows["query"].isin(np.random.default_rng(0).choice(queries, MANY_QUERIES, replace=False))]
