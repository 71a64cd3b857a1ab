"""Which fold plan's cross-fitted F1 predicts F1 on dev best: every plan with several base learners on a category task.

    python benchmarks/plans.py --data DIR [--translations CSV] [--limit 9000] [--plans ...] [--learners ...]

Every plan is a run of its own on the same rows: folds, parts, then per base learner its cross-fitted F1 and the F1 on
dev at the threshold that its out-of-fold scores choose (`steady_threshold`). The error is their difference, in points
(.01): above 0 the plan promises too much. dev's labels are used for nothing else. The test file is left out, so that
`test-matched` and `auto` look at dev (without labels). A run folder (`--work`) that is kept is gone on with.

`mean fold models` is what a submission scores dev with: the mean of the fold models. `one fold model` is the mean F1 of
the fold models by themselves, at the same threshold: what one part's scores are worth, without the gain of averaging.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.metrics import f1
from competition.tasks import get_task
from oof.blend import SingleLearner
from oof.crossfit import cross_fit, fit_final
from oof.store import PartKey
from oof.threshold import decide
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
        labels = frames["dev"].labels
        single = [
            f1(
                labels,
                decide(run.parts.read(PartKey(task, learner, fold), "dev").reindex(frames["dev"].rows["id"]), cut),
            )
            for fold, cut in ((fold, fitted.threshold) for fold in range(folds.plan.n_splits))
        ]
        lines.append(
            {
                "plan": folds.plan.kind,
                "folds": folds.plan.n_splits,
                "learner": learner,
                "trained_on": int(trained_on),
                "threshold": fitted.threshold,
                "cross_fitted": 100 * f1(frames["train"].labels, crossed.decisions),
                "dev": 100 * f1(labels, fitted.decide(frames["dev"].without_labels())),
                "dev_one_model": 100 * float(np.mean(single)),
                "dev_best": 100 * best_f1(labels, fitted.predict(frames["dev"].without_labels())),
            }
        )
        print(pd.DataFrame(lines[-1:]).round(2).to_string(index=False, header=len(lines) == 1), flush=True)
    return lines


def best_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    """F1 at the best cut of these very rows: what a threshold chosen elsewhere is measured by."""
    from oof.threshold import best_threshold

    return best_threshold(labels, scores).f1


def report(lines: pd.DataFrame) -> None:
    """The table as Markdown, then one RESULT line per plan: the mean over learners of the absolute error."""
    lines = lines.assign(
        error=lines["cross_fitted"] - lines["dev"],
        error_one_model=lines["cross_fitted"] - lines["dev_one_model"],
        lost_by_threshold=lines["dev_best"] - lines["dev"],
    )
    names = ["plan", "folds", "learner", "trained_on", "threshold", "cross_fitted", "dev", "error", "dev_one_model"]
    names += ["error_one_model", "lost_by_threshold"]
    print("\n| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for line in lines[names].itertuples(index=False):
        print("| " + " | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in line) + " |")
    for column in ("error", "error_one_model"):
        mean = lines[column].abs().groupby(lines["plan"], sort=False).mean()
        for plan, value in mean.items():
            print(f"RESULT plan_{column}_pt_{plan} {value:.2f}")
    best = lines["error"].abs().groupby(lines["plan"]).mean().idxmin()
    print(f"RESULT best_plan {best}")


if __name__ == "__main__":
    main()
