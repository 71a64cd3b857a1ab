"""The task-transfer matrix: trained on QC, on QI, on one after the other, on both; scored on dev of each task.

    python benchmarks/transfer.py --data DIR [--translations CSV] [--rows 6000] [--recipe e5-ce] [--set KEY=VALUE]

The threshold comes from training rows of the scored task that no model is trained on, and whose queries its other
training rows do not have; dev's labels are used for nothing but the figures. Prints a Markdown table, then
``RESULT <name> <value>``: what the other task first, or beside it, adds to F1 on dev, in points (.01).
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from competition.metrics import f1
from competition.tasks import get_task
from oof.threshold import best_threshold, decide
from pipelines.backbones import build
from pipelines.backbones.evaluation import carve
from pipelines.backbones.protocol import Backbone, Corpus, Workspace
from pipelines.config import Recipe, load_recipe
from pipelines.output import narrate
from pipelines.prepare import limit_rows, prepare
from pipelines.progress import available_threads
from pipelines.run_folder import RunFolder, RunSettings, without_labels
from pipelines.weights import cache_dir

TASKS = ("QC", "QI")
CHAINS = (("QC",), ("QI",), ("QC", "QI"), ("QI", "QC"))
SLICE = 1000


@dataclass(frozen=True)
class Rows:
    """What one task is trained on, what its threshold is chosen on, what it is scored on."""

    train: pd.DataFrame
    judged: pd.DataFrame
    dev: pd.DataFrame


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--translations", type=Path)
    parser.add_argument("--rows", type=int, default=6000, help="training rows per task")
    parser.add_argument("--dev-rows", type=int, default=3000)
    parser.add_argument("--recipe", default="e5-ce")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    narrate(quiet=False, verbose=False)
    rows = read(options.data, options.translations, options.rows, options.dev_rows, options.seed)
    recipe = load_recipe(options.recipe, options.overrides)
    with tempfile.TemporaryDirectory() as scratch:
        table = matrix(rows, recipe, Path(scratch), options.seed)
    report(table)


def read(data: Path, translations: Path | None, n_train: int, n_dev: int, seed: int) -> dict[str, Rows]:
    """Cleaned rows of both tasks, limited to whole queries."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        prepare(run, RunSettings(data=str(data), tasks=TASKS, translations=translations and str(translations)))
        for name in TASKS:
            splits = run.rows(name)
            rest, judged = carve(splits["train"], SLICE, seed=seed)
            found[name] = Rows(
                limit_rows(rest, n_train, seed=seed), judged, limit_rows(splits["dev"], n_dev, seed=seed)
            )
    return found


def matrix(rows: Mapping[str, Rows], recipe: Recipe, scratch: Path, seed: int) -> pd.DataFrame:
    """One line per training and scored task: trained, scored, rows, f1, auc, threshold."""
    lines: list[dict[str, object]] = []
    for chain in CHAINS:
        init = scratch / "-".join(chain[:-1]) if len(chain) > 1 else None
        space = workspace(rows, chain[-1], scratch / "work" / "-".join(chain), seed=seed, init=init)
        model = build(recipe, space).fit(rows[chain[-1]].train, get_task(chain[-1]))
        model.save(scratch / "-".join(chain))
        lines += scored(model, rows, " then ".join(chain))
    both = load_joint(recipe)
    space = workspace(rows, "QC", scratch / "work" / "both", seed=seed, others=("QI",))
    lines += scored(build(both, space).fit(rows["QC"].train, get_task("QC")), rows, "both jointly")
    return pd.DataFrame(lines)


def load_joint(recipe: Recipe) -> Recipe:
    """The recipe trained on both tasks, told apart by a tag: one network that can be scored on either."""
    return type(recipe).model_validate({**recipe.model_dump(), "joint": "tag"})


def workspace(
    rows: Mapping[str, Rows],
    task: str,
    folder: Path,
    *,
    seed: int,
    init: Path | None = None,
    others: Sequence[str] = (),
) -> Workspace:
    """The workspace of one training."""
    folder.mkdir(parents=True)
    frames = [without_labels(frame) for frame in (rows[task].train, rows[task].judged, rows[task].dev)]
    return Workspace(
        cache=cache_dir() / "embeddings",
        scratch=folder,
        corpus=Corpus.of(frames),
        seed=seed,
        threads=available_threads(),
        init=init,
        others={get_task(name): rows[name].train for name in others},
    )


def scored(model: Backbone, rows: Mapping[str, Rows], trained: str) -> list[dict[str, object]]:
    """F1 and AUC of one model on dev of every task."""
    lines = []
    for name, own in rows.items():
        judged, dev = (model.predict(without_labels(frame), get_task(name)) for frame in (own.judged, own.dev))
        threshold = best_threshold(own.judged["label"].to_numpy(dtype=np.int8), judged).threshold
        labels = own.dev["label"].to_numpy(dtype=np.int8)
        lines.append(
            {
                "trained on": trained,
                "scored on": name,
                "f1": f1(labels, decide(dev, threshold)),
                "auc": roc_auc_score(labels, dev),
                "threshold": threshold,
            }
        )
        print(lines[-1], flush=True)
    return lines


def report(table: pd.DataFrame) -> None:
    """The matrix as Markdown, and the gains of the chains."""
    print("\n| trained on | QC F1 (AUC) | QI F1 (AUC) |\n|---|---|---|")
    for trained, lines in table.groupby("trained on", sort=False):
        cells = lines.set_index("scored on")
        print(f"| {trained} | " + " | ".join(f"{cells.f1[t]:.4f} ({cells.auc[t]:.4f})" for t in TASKS) + " |")
    found = table.set_index(["trained on", "scored on"])["f1"]
    for task, other in (("QC", "QI"), ("QI", "QC")):
        print(f"RESULT transfer_gain_{task}_pt {100 * (found[f'{other} then {task}', task] - found[task, task]):.2f}")
    for task in TASKS:
        print(f"RESULT joint_gain_{task}_pt {100 * (found['both jointly', task] - found[task, task]):.2f}")


if __name__ == "__main__":
    main()
