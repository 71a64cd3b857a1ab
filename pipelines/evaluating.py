"""Every combiner on the same base scores, honestly: nested F1, how much its own rows flatter it, F1 on labelled dev."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from competition.comparison import difference_table
from competition.errors import CompetitionError, Fault
from competition.metrics import f1_interval, paired_difference
from oof.blend import SingleLearner
from oof.crossfit import cross_fit
from oof.frame import PredictionFrame
from oof.nested import NestedEstimate, nested_estimate
from pipelines.ensembling import COMBINERS, Gathered, complete_learners, ensembles, gather, make_combiner, read_ensemble
from pipelines.progress import progress
from pipelines.run_folder import RunFolder

log = logging.getLogger(__name__)

DEFAULT = "blend"


def evaluate(run: RunFolder, task: str, names: Sequence[str] = (), *, n_repeats: int = 1) -> dict[str, pd.DataFrame]:
    """Tables by title for the named (or all) combiners of the run's base learners; nothing is written.

    The first: `combiner`, `nested_f1` (mean over repeats), `low`, `high` (bootstrap over groups, first repeat),
    `spread` (standard deviation over repeats), `in_sample`, `flattery` (in sample minus nested), and, with dev labels,
    `dev_f1`, `dev_low`, `dev_high` (over queries). The second, if the default is among them: default minus each other,
    nested and on dev, with intervals.

    Raises
    ------
    CompetitionError
        An unknown combiner, or fewer than one repeat.
    """
    faults = [Fault("--name", each, f"one of {', '.join(COMBINERS)}") for each in names if each not in COMBINERS]
    faults += [Fault("--repeats", str(n_repeats), "1 or more")] if n_repeats < 1 else []
    if faults:
        raise CompetitionError("this cannot be evaluated", faults=faults)
    gathered = gather(run, task, complete_learners(run, task))
    estimates: dict[str, NestedEstimate] = {}
    chosen = list(names or COMBINERS)
    with progress(f"{task} combiners", total=len(chosen)) as advance:
        for name in chosen:
            combiner = make_combiner(name, gathered.frames, seed=run.settings().seed)
            estimates[name] = nested_estimate(combiner, gathered.frames["train"], n_repeats=n_repeats)
            advance(1)
    dev = _labelled(gathered)
    tables = {f"{task}: combiners": _quality(estimates, dev)}
    if DEFAULT in estimates and len(estimates) > 1:
        tables[f"{task}: {DEFAULT} minus each other"] = _advantage(estimates, gathered.frames["train"], dev)
    return tables


def compare_entries(run: RunFolder, task: str, first: str, second: str) -> pd.DataFrame:
    """How much better one base learner or ensemble is than another on train, cross-fitted: in all, and per language.

    Raises
    ------
    CompetitionError
        The run has no complete base learner and no ensemble of that name.
    """
    complete, finished = complete_learners(run, task), ensembles(run, task)
    there = [*complete, *finished]
    if faults := [
        Fault(name, "not there", f"one of {', '.join(there)}") for name in (first, second) if name not in there
    ]:
        raise CompetitionError(f"{task}: these cannot be compared", faults=faults)
    train = gather(run, task, complete).frames["train"]

    def decisions(name: str) -> np.ndarray:
        if name in finished:
            return read_ensemble(run, task, name, "oof", train.rows["id"])["decision"].to_numpy()
        return cross_fit(SingleLearner(name), train).decisions

    return difference_table(
        train.labels, decisions(first), decisions(second), train.group, train.rows["language"].to_numpy()
    )


def _labelled(gathered: Gathered) -> PredictionFrame | None:
    """The dev rows that have labels."""
    dev = gathered.frames.get("dev")
    if dev is None or not dev.rows["label"].notna().any():
        return None
    return dev.take(dev.rows["label"].notna().to_numpy())


def _quality(estimates: Mapping[str, NestedEstimate], dev: PredictionFrame | None) -> pd.DataFrame:
    lines = []
    for name, each in estimates.items():
        line: dict[str, object] = {
            "combiner": name,
            "nested_f1": each.mean,
            "low": each.interval.low,
            "high": each.interval.high,
            "spread": each.spread,
            "in_sample": each.in_sample,
            "flattery": each.flattery,
        }
        if dev is not None:
            on_dev = f1_interval(dev.labels, each.fitted.decide(dev), dev.rows["query"])
            line |= {"dev_f1": on_dev.estimate, "dev_low": on_dev.low, "dev_high": on_dev.high}
        lines.append(line)
    return pd.DataFrame(lines).sort_values("nested_f1", ascending=False, kind="stable", ignore_index=True)


def _advantage(
    estimates: Mapping[str, NestedEstimate], train: PredictionFrame, dev: PredictionFrame | None
) -> pd.DataFrame:
    default, lines = estimates[DEFAULT], []
    for name, each in estimates.items():
        if name == DEFAULT:
            continue
        nested = paired_difference(train.labels, default.crossed.decisions, each.crossed.decisions, train.group)
        line: dict[str, object] = {"other": name, "nested": nested.estimate, "low": nested.low, "high": nested.high}
        if dev is not None:
            gap = paired_difference(dev.labels, default.fitted.decide(dev), each.fitted.decide(dev), dev.rows["query"])
            line |= {"dev": gap.estimate, "dev_low": gap.low, "dev_high": gap.high}
        lines.append(line)
    return pd.DataFrame(lines)
