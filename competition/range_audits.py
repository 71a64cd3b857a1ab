"""Audits of what can be reached: F1 between no knowledge and the noise of the labels; the fold plan."""

import numpy as np
import pandas as pd

from competition.pair_audits import PAIR
from competition.plan_choice import choose_plan
from competition.shift_audits import Z, wilson
from competition.verdicts import Audited, Subject, Verdict

FEW_COUPLES = 30
REFERENCE_F1 = 0.85
SMALL_DIFFERENCE = 0.02


def everything_positive(prior: float) -> float:
    """F1 of who calls every row positive where a share `prior` is.

    Examples
    --------
    >>> round(everything_positive(0.6), 4)
    0.75
    """
    return 2 * prior / (1 + prior)


def f1_error(f1: float, *, prior: float, n_rows: int) -> float:
    """The standard error of F1 on `n_rows` independent rows, precision and recall being equal (delta method).

    Rows of one query go right or wrong together, so that the true one is larger.

    Examples
    --------
    >>> round(f1_error(0.89, prior=0.65, n_rows=100_000), 5)
    0.00091
    """
    return float(np.sqrt(f1 * (1 - f1) * (2 - f1) / (2 * prior * n_rows)))


def noisy_ceiling(noise: float, *, prior: float) -> float:
    """F1 of who knows every true label where a share `noise` of the labels, each alone, is turned.

    Parameters
    ----------
    prior
        The share of positive labels after they were turned.

    Examples
    --------
    >>> round(noisy_ceiling(0.05, prior=0.66), 3)
    0.963
    """
    if noise >= 0.5:
        return everything_positive(prior)
    true = float(np.clip((prior - noise) / (1 - 2 * noise), 0.0, 1.0))
    return max(2 * true * (1 - noise) / max(true + prior, 1e-9), everything_positive(prior))


def label_noise(rows: pd.DataFrame) -> tuple[float, float, float, int]:
    """The share of turned labels that repeated pairs tell, its 95 % bounds, and how many couples of rows tell it.

    Two rows of one pair disagree with probability 2 e (1 - e) where each label is turned with probability e. Each
    pair gives one couple: its first two labelled rows.
    """
    labelled = rows[rows["label"].notna() & (rows["query"] != "") & (rows["target"] != "")]
    pairs = labelled.groupby(PAIR, sort=False)["label"]
    first, second = pairs.nth(0), pairs.nth(1)
    keys = labelled[PAIR]
    repeated = pd.MultiIndex.from_frame(keys.loc[second.index])
    known = pd.Series(first.to_numpy(), index=pd.MultiIndex.from_frame(keys.loc[first.index]))
    disagree = int((known.reindex(repeated).to_numpy() != second.to_numpy()).sum())
    low, high = wilson([disagree], [len(second)])
    share = disagree / len(second) if len(second) else 0.0
    noise = [(1 - np.sqrt(max(0.0, 1 - 2 * each))) / 2 for each in (share, float(low[0]), float(high[0]))]
    return noise[0], noise[1], noise[2], len(second)


def audit_range(subject: Subject) -> Audited:
    """Where F1 begins, where label noise ends it, and the smallest difference that is none."""
    point, train = "expected F1", subject.rows["train"]
    prior = float(train["label"].astype("float64").mean())
    if not 0 < prior < 1:
        return Audited(Verdict(point, "warning", "train has one label only, so F1 says nothing"))
    bottom = everything_positive(prior)
    lines, words = [_line("everything positive", bottom, f"{len(train):,} rows")], [f"everything positive {bottom:.3f}"]
    noise, low, high, n_couples = label_noise(train)
    if n_couples >= FEW_COUPLES:
        best, worst, at_most = (noisy_ceiling(each, prior=prior) for each in (noise, high, low))
        lines.append(_line("ceiling by label noise", best, f"{n_couples:,} repeated pairs", low=worst, high=at_most))
        words.append(f"noise of the labels ends it at {best:.3f} [{worst:.3f}, {at_most:.3f}]")
    else:
        words.append(f"too few repeated pairs ({n_couples}) to tell where noise of the labels ends it")
    errors = {split: f1_error(REFERENCE_F1, prior=prior, n_rows=len(rows)) for split, rows in subject.rows.items()}
    lines += [
        _line(f"standard error on {split} near {REFERENCE_F1}", error, f"{len(subject.rows[split]):,} rows")
        for split, error in errors.items()
    ]
    scatter = Z * errors[subject.judged or "train"]
    words.append(f"on {subject.judged or 'train'} it scatters by ±{scatter:.3f} or more")
    if scatter <= SMALL_DIFFERENCE:
        return Audited(Verdict(point, "ok", "; ".join(words)), pd.DataFrame(lines))
    advice = "smaller differences need a paired comparison, or cannot be told"
    return Audited(Verdict(point, "note", "; ".join(words), advice), pd.DataFrame(lines))


def _line(what: str, f1: float, told_by: str, *, low: float = np.nan, high: float = np.nan) -> dict[str, object]:
    return {"what": what, "f1": f1, "low": low, "high": high, "told by": told_by}


def audit_plan(subject: Subject) -> Audited:
    """The fold plan that ``--plan auto`` takes, and why."""
    kind, reason = choose_plan(subject.rows, subject.task)
    return Audited(Verdict("fold plan", "ok", f"--plan auto takes {kind}: {reason}"))
