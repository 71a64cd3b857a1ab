"""Which fold plan's cross-fitted F1 predicts F1 on dev best: every plan with several base learners on a category task.

    python benchmarks/plans.py --data DIR [--translations CSV] [--limit 9000] [--plans ...] [--learners ...]

Every plan is a run of its own on the same rows: folds, parts, then per base learner its cross-fitted F1 and the F1 on
dev at the threshold that its out-of-fold scores choose (`steady_threshold`). The error is their difference, in points
(.01): above 0 the plan promises too much. dev's labels are used for nothing else. The test file is left out, so that
`test-matched` and `auto` look at dev (without labels). A run folder (`--work`) that is kept is gone on with.

    at_dev_rate    the cross-fitted F1 with rows weighed to dev's share of positives: F1 grows with that share, which
                   no fold plan can know, so this is the error of the plan without that of the share
    dev_one_model  mean F1 of the fold models by themselves; dev's scores are means of theirs, out-of-fold ones are not
    dev_known, dev_new    dev's languages that train has, and the others
    dev_best_cut   F1 at the best cut of dev itself: what the plan's threshold gives away
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.metrics import f1
from competition.tasks import get_task
from oof.blend import SingleLearner
from oof.crossfit import CrossFitted, Fitted, cross_fit, fit_final
from oof.frame import PredictionFrame
from oof.store import PartKey, align
from oof.threshold import best_threshold, decide
from pipelines.ensembling import gather
from pipelines.output import narrate
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.train import train

PLANS = ("category-group", "query-group", "purged", "language-holdout", "family-holdout", "test-matched")
LEARNERS = ("lexical", "lexical-linear", "e5-bi")
FEWEST_FOLDS = 3


def main() -> None:
    """Split, train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--translations", type=Path)
    parser.add_argument("--task", default="QC")
    parser.add_argument("--limit", type=int, help="about so many training rows")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--plans", default=",".join(PLANS))
    parser.add_argument("--learners", default=",".join(LEARNERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep the runs here")
    options = parser.parse_args()
    narrate(quiet=False, verbose=False)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        data = without_test(options.data, work / "data", task=options.task)
        lines: list[dict[str, object]] = []
        for plan in options.plans.split(","):
            settings = RunSettings(
                data=str(data),
                tasks=(options.task,),
                plan=plan,
                folds=min(options.folds, most_folds(data, plan, task=options.task)),
                seed=options.seed,
                limit=options.limit,
                translations=options.translations and str(options.translations),
            )
            lines += measure(RunFolder(work / plan), settings, learners=options.learners.split(","))
    report(pd.DataFrame(lines))


def without_test(data: Path, folder: Path, *, task: str) -> Path:
    """A folder with links to the train and dev files of one task."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(data.iterdir()):
        link = folder / file.name
        if file.name.startswith((f"train_{task}.", f"dev_{task}.")) and not link.exists():
            link.symlink_to(file.resolve())
    return folder


def most_folds(data: Path, plan: str, *, task: str) -> int:
    """How many folds a plan can make of the training rows, as far as languages decide it."""
    from competition.language_folds import families
    from competition.rows import read_competition

    rows = read_competition(data, [get_task(task)])[task]["train"]
    units = {"language-holdout": rows["language"], "family-holdout": families(rows)}
    return max(FEWEST_FOLDS, units[plan].nunique()) if plan in units else len(rows)


def measure(run: RunFolder, settings: RunSettings, *, learners: Sequence[str]) -> list[dict[str, object]]:
    """One line per base learner of a plan; parts that are there are not made again."""
    prepare(run, settings)
    run.add_recipes(learners, ())
    task = settings.tasks[0]
    folds = split(run)[task]
    trained_on = np.mean([folds.training_rows(k, run.rows(task)["train"]).sum() for k in range(folds.plan.n_splits)])
    lines = []
    for learner in learners:
        for fold in range(folds.plan.n_splits):
            train(run, PartKey(task, learner, fold))
        frames = gather(run, task, [learner]).frames
        crossed = cross_fit(SingleLearner(learner), frames["train"])
        fitted = fit_final(SingleLearner(learner), frames["train"], cross_fitted=crossed)
        lines.append({"plan": folds.plan.kind, "folds": folds.plan.n_splits, "learner": learner})
        lines[-1] |= {"trained_on": int(trained_on), "threshold": fitted.threshold}
        lines[-1] |= compare(frames, crossed, fitted, parts_of(run, frames["dev"], task, learner))
        print(pd.DataFrame(lines[-1:]).round(2).to_string(index=False, header=len(lines) == 1), flush=True)
    return lines


def parts_of(run: RunFolder, dev: PredictionFrame, task: str, learner: str) -> list[np.ndarray]:
    """The scores of dev by every fold model, ``(n_rows,)`` each."""
    keys = [PartKey(task, learner, fold) for fold in range(run.folds(task).plan.n_splits)]
    return [align(run.parts.read(key, "dev"), dev.rows["id"], where=str(key)) for key in keys]


def compare(
    frames: Mapping[str, PredictionFrame], crossed: CrossFitted, fitted: Fitted, single: Sequence[np.ndarray]
) -> dict[str, float]:
    """What is promised and what dev says, F1 in points."""
    train, dev = frames["train"], frames["dev"]
    scores = fitted.predict(dev.without_labels())
    decisions = decide(scores, fitted.threshold)
    known = dev.rows["language"].isin(train.rows["language"].unique()).to_numpy()
    found = {
        "cross_fitted": f1(train.labels, crossed.decisions),
        "at_dev_rate": f1_at_rate(train.labels, crossed.decisions, float(dev.labels.mean())),
        "dev": f1(dev.labels, decisions),
        "dev_one_model": float(np.mean([f1(dev.labels, decide(each, fitted.threshold)) for each in single])),
        "dev_known": f1(dev.labels[known], decisions[known]),
        "dev_new": f1(dev.labels[~known], decisions[~known]) if not known.all() else float("nan"),
        "dev_best_cut": best_threshold(dev.labels, scores).f1,
    }
    return {name: 100 * value for name, value in found.items()}


def f1_at_rate(labels: np.ndarray, decisions: np.ndarray, rate: float) -> float:
    """F1, the rows weighed so that a share `rate` is positive: files with more positives have a higher F1."""
    weight = np.where(labels == 1, rate / labels.mean(), (1 - rate) / (1 - labels.mean()))
    hit, found, there = (weight[rows].sum() for rows in ((labels & decisions) == 1, decisions == 1, labels == 1))
    return float(2 * hit / (found + there))


def report(lines: pd.DataFrame) -> None:
    """The table as Markdown, then per plan the mean over learners of the absolute errors."""
    lines = lines.assign(
        error=lines["cross_fitted"] - lines["dev"], error_at_dev_rate=lines["at_dev_rate"] - lines["dev"]
    )
    print("\n| " + " | ".join(lines) + " |\n|" + "---|" * lines.shape[1])
    for line in lines.itertuples(index=False):
        print("| " + " | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in line) + " |")
    for column in ("error", "error_at_dev_rate"):
        mean = lines[column].abs().groupby(lines["plan"], sort=False).mean()
        for plan, value in mean.items():
            print(f"RESULT plan_{column}_pt_{plan} {value:.2f}")
        print(f"RESULT plan_least_{column} {mean.idxmin()}")


if __name__ == "__main__":
    main()
