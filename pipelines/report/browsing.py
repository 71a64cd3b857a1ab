"""The rows behind the figures: which of them a report takes along, and how they are packed into the page."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd

from pipelines.report.views import TaskView
from pipelines.scoreboard import Judged

ERROR_SHARE, DISPUTED_SHARE = 0.6, 0.2
SCORE_STEPS = 1000  # scores are packed as whole thousandths
DEV_FOLD = "dev"

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Pool:
    """The labelled rows of a task with what every model says of them.

    Attributes
    ----------
    rows
        Columns `id`, `language`, `fold` (text: a number, or ``dev``), `query`, `query_en`, `target`, `label`,
        `decision` (of the chosen model).
    scores
        ``(n_rows, n_models)``, base learners first.
    models
        Their names.
    n_learners
        How many of them are base learners.
    chosen
        The place of the chosen model among them.
    cut
        Where the chosen model cuts.
    """

    task: str
    rows: pd.DataFrame
    scores: Floats
    models: tuple[str, ...]
    n_learners: int
    chosen: int
    cut: float


@dataclass(frozen=True)
class Kind:
    """One kind of rows in the page: how many of how many are shown. No row is of two kinds, every row is of one."""

    words: str
    shown: int
    there: int


@dataclass(frozen=True, eq=False)
class Choice:
    """The rows that a report takes along: their positions in the pool, and how many of each kind."""

    positions: Positions
    kinds: tuple[Kind, ...]


def pool_of(view: TaskView) -> Pool:
    """The out-of-fold rows of train, and the labelled rows of dev."""
    models = [*view.learners, *view.ensembles]
    chosen = models.index(view.chosen)
    train = view.train.rows.assign(
        fold=view.train.rows["fold"].astype("str"), decision=view.chosen.decisions, label=view.train.labels
    )
    tables, scores = [train], [_columns(models, dev=False)]
    if (labelled := view.labelled_dev) is not None and view.dev is not None:
        dev = view.dev.rows.assign(fold=DEV_FOLD, decision=view.chosen.dev_decisions)[labelled]
        tables.append(dev.astype({"label": np.int8}))
        scores.append(_columns(models, dev=True)[labelled])
    wanted = ["id", "language", "fold", "query", "query_en", "target", "label", "decision"]
    return Pool(
        view.task.name,
        pd.concat([table[wanted] for table in tables], ignore_index=True),
        np.concatenate(scores),
        tuple(each.name for each in models),
        len(view.learners),
        chosen,
        view.chosen.cuts.overall,
    )


def choose_rows(pool: Pool, n_rows: int, *, seed: int) -> Choice:
    """At most `n_rows` rows: the worst errors, then the most disputed of the others, then a random sample.

    Errors take `ERROR_SHARE` of the room and disputed rows `DISPUTED_SHARE`, so that there is always something to
    compare errors with; room that one kind leaves goes to the next, and at last back to the errors. How wrong an
    error is: the distance of the chosen model's score from the label. How disputed a row is: the distance between the
    highest and the lowest score that a base learner gives it.
    """
    label, wrong = pool.rows["label"].to_numpy(), (pool.rows["label"] != pool.rows["decision"]).to_numpy()
    wrongness = np.abs(pool.scores[:, pool.chosen] - label)
    learners = pool.scores[:, : pool.n_learners]
    spread = learners.max(axis=1) - learners.min(axis=1)
    errors, right = _falling(np.flatnonzero(wrong), wrongness), _falling(np.flatnonzero(~wrong), spread)
    n_errors = min(len(errors), max(round(ERROR_SHARE * n_rows), n_rows - len(right)))
    n_right = min(len(right), n_rows - n_errors)
    n_disputed = min(n_right, round(DISPUTED_SHARE * n_rows))
    disputed, rest = right[:n_disputed], right[n_disputed:]
    drawn = np.random.default_rng(seed).choice(rest, size=n_right - n_disputed, replace=False)
    kinds = (
        Kind("errors, the worst first", n_errors, len(errors)),
        Kind("decided rightly: what base learners dispute most", n_disputed, n_disputed),
        Kind("decided rightly: the others, drawn at random", len(drawn), len(rest)),
    )
    return Choice(np.concatenate([errors[:n_errors], disputed, np.sort(drawn)]).astype(np.intp), kinds)


def packed(pools: Sequence[tuple[Pool, Choice]]) -> str:
    """The chosen rows of every task as base64 of gzipped JSON: no text in it can end the element it stands in."""
    data = orjson.dumps([_values(pool, choice.positions) for pool, choice in pools])
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")


def _columns(models: Sequence[Judged], *, dev: bool) -> Floats:
    """The scores of all models side by side, ``(n_rows, n_models)``."""
    return np.column_stack([each.dev_scores if dev and each.dev_scores is not None else each.scores for each in models])


def _falling(positions: Positions, by: Floats) -> Positions:
    """The positions, those of the highest values first; of equals the first."""
    return positions[np.argsort(-by[positions], kind="stable")]


def _values(pool: Pool, positions: Positions) -> Mapping[str, object]:
    rows = pool.rows.iloc[positions]
    coded = ("language", "fold", "query", "query_en", "target")
    steps = np.rint(pool.scores[positions] * SCORE_STEPS).astype(np.int64)
    return {
        "task": pool.task,
        "models": pool.models,
        "learners": pool.n_learners,
        "chosen": pool.chosen,
        "cut": pool.cut,
        "id": rows["id"].astype("str").tolist(),
        **{name: _coded(rows[name]) for name in coded},
        "label": rows["label"].tolist(),
        "decision": rows["decision"].tolist(),
        "scores": [column.tolist() for column in steps.T],
    }


def _coded(values: pd.Series) -> Mapping[str, list[object]]:
    """Each distinct value once, and its place per row."""
    codes, names = pd.factorize(values.fillna("").astype("str"))
    return {"names": list(names), "codes": codes.tolist()}
