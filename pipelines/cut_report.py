"""Where an ensemble cuts, and what else could be done: calibration, cuts per language, a shifted share of positives."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from oof.calibration import METHODS, calibration_report
from oof.frame import PredictionFrame
from oof.priors import prior_matched_threshold
from oof.segments import choose_segment_cuts
from oof.threshold import decide


def cut_tables(
    train: PredictionFrame, scores: np.ndarray, others: Mapping[str, np.ndarray], threshold: float
) -> dict[str, pd.DataFrame]:
    """Tables by title: `calibration`, `cuts per language`, and, if there are other splits, `share of positives`.

    Parameters
    ----------
    scores
        Cross-fitted, ``(n_rows,)``, of the rows of `train`.
    others
        Scores of dev and test by split.
    threshold
        What the ensemble is cut at.
    """
    tables = {
        "calibration": calibration_report(train.labels, scores, train.fold),
        "cuts per language": language_cuts(train, scores),
    }
    if others:
        tables["share of positives"] = positive_shares(train, scores, others, threshold)
    return tables


def language_cuts(train: PredictionFrame, scores: np.ndarray) -> pd.DataFrame:
    """One line per language: `language`, `rows`, `cut` (the global one where the evidence is too thin), `strength`.

    `gain` with `low` and `high` is the nested gain in F1 of all languages' cuts together over the global cut.
    """
    language = train.rows["language"].to_numpy()
    choice = choose_segment_cuts(train.labels, scores, language, fold=train.level2_fold, groups=train.group)
    names, n_rows = np.unique(language, return_counts=True)
    gain = {"gain": choice.gain.estimate, "low": choice.gain.low, "high": choice.gain.high}
    return pd.DataFrame(
        {"language": names, "rows": n_rows, "cut": choice.cuts.thresholds(names), "strength": choice.strength, **gain}
    )


def positive_shares(
    train: PredictionFrame, scores: np.ndarray, others: Mapping[str, np.ndarray], threshold: float
) -> pd.DataFrame:
    """One line per split: `split`, `rows`, `train_rate`, `expected_rate` with `p_value`, `decided`, `decided_matched`.

    Rates are shares of positives: of the training labels; expected in the split, by its calibrated scores alone;
    decided positive at the threshold, and at the cut that matches the expected share. See `oof.priors` for what is
    assumed: a p-value near 0 may as well mean new languages or other queries.
    """
    calibrate = METHODS["isotonic"](train.labels, scores)
    rate = float(train.labels.mean())
    lines = []
    for split, found in others.items():
        calibrated = calibrate(found)
        cut, shift = prior_matched_threshold(calibrated, rate)
        lines.append(
            {
                "split": split,
                "rows": len(found),
                "train_rate": rate,
                "expected_rate": shift.rate,
                "p_value": shift.p_value,
                "decided": float(decide(found, threshold).mean()),
                "decided_matched": float(decide(calibrated, cut).mean()),
            }
        )
    return pd.DataFrame(lines)
