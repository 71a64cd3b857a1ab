"""What an ensemble rests on: its weights, what its trees look at, and what each base learner adds to it."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from competition.comparison import difference_table
from competition.errors import CompetitionError, Fault, MismatchError
from competition.metrics import Interval, f1, paired_difference
from oof.blend import SingleLearner, WeightedMean
from oof.combiner import FittedCombiner
from oof.crossfit import cross_fit
from oof.frame import PredictionFrame
from oof.logistic import FittedLogistic
from oof.mix import FittedMix
from oof.readers import read_combiner
from oof.stack import FittedLightGBM
from pipelines.cut_report import cut_tables
from pipelines.ensembling import (
    Gathered,
    ensemble_scores,
    ensembles,
    gather,
    make_combiner,
    read_ensemble,
    read_manifest,
)
from pipelines.run_folder import RunFolder

log = logging.getLogger(__name__)

N_FEATURES = 20  # the rest is summed up in one line


def explain(run: RunFolder, task: str, names: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Tables by title for the named (or all) finished ensembles of a task.

    What each base learner adds is found by fitting and cross-fitting the ensemble again without it: as many times the
    work of the ensemble as there are base learners.

    Raises
    ------
    CompetitionError
        There is no such ensemble, or the parts that it was made from are no longer there.
    """
    finished = ensembles(run, task)
    if missing := [name for name in names if name not in finished] or ([] if finished else ["any"]):
        raise CompetitionError(
            f"{task} has no such ensemble",
            faults=[Fault(name, "not there", f"one of {', '.join(finished) or 'stack, blend'}") for name in missing],
            advice=f"make one: relstack stack --run {run.root} --task {task}",
        )
    tables: dict[str, pd.DataFrame] = {}
    for name in names or finished:
        tables |= _explain_one(run, task, name)
    if {"stack", "blend"} <= set(names or finished):
        tables[f"{task}: stack against blend, by language"] = _stack_against_blend(run, task)
    return tables


def contributions(gathered: Gathered, name: str, decisions: np.ndarray, *, seed: int) -> pd.DataFrame:
    """What each base learner adds to the ensemble `name` whose cross-fitted `decisions` are given, most first.

    Columns: `learner`, `alone` (its own cross-fitted F1), `without` (that of the ensemble of the others), `adds` (the
    ensemble's F1 minus that) with `low` and `high`, its paired bootstrap interval over groups. Two learners that say
    the same add nothing each, though both gone may cost much. No lines for an ensemble of one.
    """
    train = gathered.frames["train"]
    lines = []
    for learner in train.learners if train.n_learners > 1 else ():
        log.info("%s without %s", name, learner)
        others = [each for each in train.learners if each != learner]
        without = _cross_fitted(gathered.frames, others, name, seed=seed)
        alone = cross_fit(SingleLearner(learner), train).decisions
        adds = paired_difference(train.labels, decisions, without, train.group)
        lines.append(_line(learner, f1(train.labels, alone), f1(train.labels, without), adds))
    columns = ["learner", "alone", "without", "adds", "low", "high"]
    return pd.DataFrame(lines, columns=columns).sort_values("adds", ascending=False, ignore_index=True)


def weights_table(fitted: FittedCombiner) -> pd.DataFrame:
    """Columns `learner`, `weight`, `space`, heaviest first; no lines for combiners that weigh nothing.

    They are the weights of a blend, or the coefficients of a logistic stacker (also of that which trees start from),
    which need not sum to 1; where it tells languages apart, those of languages that it does not know.
    """
    if isinstance(fitted, WeightedMean):
        learners, weights, space = fitted.learners, fitted.weights, fitted.space
    elif isinstance(fitted, FittedLightGBM):
        return weights_table(fitted.offset)
    elif isinstance(fitted, FittedLogistic):
        learners, weights, space = fitted.learners, fitted.coefficients, "logit"
    else:
        learners, weights, space = (), (), ""
    table = pd.DataFrame({"learner": learners, "weight": weights, "space": space})
    return table.sort_values("weight", ascending=False, kind="stable", ignore_index=True)


def language_weights_table(fitted: FittedLogistic) -> pd.DataFrame:
    """One line per language that a logistic stacker tells apart: `language`, its coefficients, `intercept`."""
    columns = [*fitted.learners, "intercept"]
    lines = [
        dict(zip(["language", *columns], [name, *values], strict=True)) for name, values in fitted.by_language.items()
    ]
    return pd.DataFrame(lines, columns=["language", *columns])


def member_tables(title: str, fitted: FittedCombiner) -> dict[str, pd.DataFrame]:
    """Tables by title: what a fitted combiner is made of, and, for a mixture, each of its members."""
    if isinstance(fitted, FittedMix):
        shares = pd.DataFrame({"member": list(fitted.members), "share": fitted.shares})
        tables = {f"{title}: mixed of": shares}
        for name, member in fitted.members.items():
            tables |= member_tables(f"{title}, {name}", member)
        return tables
    tables = {f"{title}: weights": weights_table(fitted)}
    logistic = fitted.offset if isinstance(fitted, FittedLightGBM) else fitted
    if isinstance(logistic, FittedLogistic) and logistic.by_language:
        tables[f"{title}: weights per language"] = language_weights_table(logistic)
    if isinstance(fitted, FittedLightGBM):
        tables[f"{title}: importance of features"] = gain_table(fitted)
    return tables


def gain_table(fitted: FittedLightGBM) -> pd.DataFrame:
    """Columns `feature`, `gain` (its share of all that splits won) and `splits`, most gain first.

    Only the first `N_FEATURES` stand alone. No lines for a stacker that kept no trees.
    """
    import lightgbm as lgb

    if not fitted.n_rounds:
        return pd.DataFrame({"feature": [], "gain": [], "splits": []})
    trees = lgb.Booster(model_str=fitted.trees)
    gain = trees.feature_importance("gain")
    table = pd.DataFrame(
        {"feature": fitted.features, "gain": gain / gain.sum(), "splits": trees.feature_importance("split")}
    ).sort_values("gain", ascending=False, kind="stable", ignore_index=True)
    rest = table.iloc[N_FEATURES:]
    last = pd.DataFrame(
        {"feature": [f"{len(rest)} others"], "gain": [rest["gain"].sum()], "splits": [rest["splits"].sum()]}
    )
    return pd.concat([table.iloc[:N_FEATURES], last], ignore_index=True) if len(rest) else table


def _explain_one(run: RunFolder, task: str, name: str) -> dict[str, pd.DataFrame]:
    folder = run.ensemble(task, name)
    manifest = read_manifest(folder)
    gathered = gather(run, task, manifest["learners"])
    if dict(gathered.sources) != manifest["sources"]:
        raise MismatchError(
            f"the parts of {task} are not those that {name} was made from",
            advice=f"make it again: relstack {name} --run {run.root} --task {task}",
        )
    tables = member_tables(f"{task} {name}", read_combiner(folder))
    train = gathered.frames["train"]
    oof = read_ensemble(run, task, name, "oof", train.rows["id"])
    added = contributions(gathered, name, oof["decision"].to_numpy(), seed=run.settings().seed)
    tables[f"{task} {name}: what each base learner adds"] = added
    others = {
        split: ensemble_scores(run, task, name, split, frame.rows["id"])
        for split, frame in gathered.frames.items()
        if split != "train"
    }
    cuts = cut_tables(train, oof["score"].to_numpy(), others, manifest["threshold"])
    return tables | {f"{task} {name}: {title}": table for title, table in cuts.items()}


def _stack_against_blend(run: RunFolder, task: str) -> pd.DataFrame:
    train: PredictionFrame = gather(run, task, read_manifest(run.ensemble(task, "stack"))["learners"]).frames["train"]
    stack, blend = (read_ensemble(run, task, name, "oof", train.rows["id"])["decision"] for name in ("stack", "blend"))
    return difference_table(train.labels, stack, blend, train.group, train.rows["language"])


def _cross_fitted(
    frames: Mapping[str, PredictionFrame], learners: Sequence[str], name: str, *, seed: int
) -> np.ndarray:
    """The cross-fitted decisions of an ensemble of these learners only, ``(n_rows,)``."""
    chosen = {split: frame.with_learners(learners) for split, frame in frames.items()}
    return cross_fit(make_combiner(name, chosen, seed=seed), chosen["train"]).decisions


def _line(learner: str, alone: float, without: float, adds: Interval) -> dict[str, object]:
    return {
        "learner": learner,
        "alone": alone,
        "without": without,
        "adds": adds.estimate,
        "low": adds.low,
        "high": adds.high,
    }
