"""Teachers: scores that others are trained on, made so that no label is shown to whom it must not be.

Two ways in, and the trap between them. A base learner that is judged out of fold may be taught by unlabelled rows whose
scores know nothing of its held-out fold: `fold_safe_teachers`. It must **not** be taught the out-of-fold scores of the
training rows. Those of fold j come from models that trained on the labels of fold k, so a student of fold k would learn
its held-out labels in a roundabout way, and its own out-of-fold F1 would flatter it (with random labels and a teacher
that remembers rows one sees it at once). Such scores, `soft_labels`, are for one student that is trained on all rows
and judged on rows that nobody was trained on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.errors import CompetitionError, Fault
from oof.calibration import Temperature, fit_temperature
from oof.combiner import NOTHING, Combiner, FittedCombiner, fits_over
from oof.frame import PredictionFrame
from oof.level2_folds import with_level2_folds

Floats = npt.NDArray[np.float64]
Binary = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Teacher:
    """A fitted combiner whose scores are brought to probabilities by one number."""

    combiner: FittedCombiner
    calibration: Temperature

    def predict(self, frame: PredictionFrame) -> Floats:
        """The probability of label 1 of every row, ``(n_rows,)``; labels are not looked at."""
        return self.calibration(self.combiner.predict(frame.without_labels()))


def fold_safe_teachers(combiner: Combiner, train: PredictionFrame) -> dict[int, Teacher]:
    """For every fold a teacher that was fitted without its rows; give it scores of that fold's own models.

    Its temperature is fitted on scores of the other folds that are themselves cross-fitted, over level-2 folds.

    Limit: as in all stacking, the base scores of the other folds are those of models that saw fold k's labels. The
    combiner's few numbers are chosen on them, which tells nothing of any single row; `SingleLearner` chooses none but
    the temperature.

    Raises
    ------
    CompetitionError
        Labels or folds are missing, or there are fewer than two folds.
    """
    train = train.take(train.id_order())  # fits ignore the file's order
    folds = [int(k) for k in np.unique(train.fold)]
    if len(folds) < 2:
        raise CompetitionError("too few folds", faults=[Fault("fold", f"{len(folds)}: {folds}", "2 or more")])
    teachers = {}
    for k in folds:
        others = with_level2_folds(train.take(train.fold != k))
        fits = fits_over(combiner, others)
        calibration = fit_temperature(others.labels, fits.inner(NOTHING))
        teachers[k] = Teacher(fits.fit_without(NOTHING), calibration)
    return teachers


def soft_labels(labels: Binary, scores: Floats, *, mix: float) -> Floats:
    """What a distilled student learns from labelled rows, ``(n_rows,)``: ``mix * score + (1 - mix) * label``.

    Examples
    --------
    >>> soft_labels(np.array([1, 0]), np.array([0.6, 0.1]), mix=0.5).round(2).tolist()
    [0.8, 0.05]
    """
    if not 0 <= mix <= 1:
        raise CompetitionError("these labels cannot be mixed", faults=[Fault("mix", str(mix), "0 to 1")])
    return mix * scores + (1 - mix) * labels


def taught_threshold(scores: Floats, probabilities: Floats) -> float:
    """The cut of a student's scores with the best F1, if rows are positive as often as its teacher says.

    It lies midway between two neighbouring scores (rows of one score are decided alike), or between 0 and the lowest;
    of equals it is the one that decides fewest rows positive. With probabilities of 0 and 1 that is the cut of
    `oof.threshold.best_threshold`.

    The same share of positives as the teacher's would be simpler, and wrong for a student that is weaker: the less it
    can tell the rows apart, the more of them it must decide positive. Measured on the `cup` data, QC, F1 on dev of a
    lexical student of a stack (.959): .786 with the teacher's share, .823 with this cut, .823 with the best of all.

    Examples
    --------
    >>> taught_threshold(np.array([0.1, 0.3, 0.4, 0.6, 0.8]), np.array([0.0, 1.0, 0.0, 1.0, 1.0]))
    0.2
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    expected = 2 * np.cumsum(probabilities[order]) / (np.arange(1, len(order) + 1) + probabilities.sum())
    following = np.append(ordered[1:], 0.0)
    expected[ordered == following] = -1.0  # no cut between rows of one score
    best = int(expected.argmax())
    return float((ordered[best] + following[best]) / 2)
