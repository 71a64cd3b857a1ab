"""Evaluation while a network trains: a few times per epoch, on a fixed slice of train, keeping the best weights."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.cleaning import map_distinct, normalise_query
from oof.threshold import best_threshold
from pipelines.backbones.scoring import Logits, score_inputs
from pipelines.sections import TrainingSection
from pipelines.tokens import Inputs
from pipelines.trackers import log_metrics

log = logging.getLogger(__name__)

WEIGHTS, RECORD = "best.safetensors", "evaluations.json"
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Labelled:
    """Inputs, their labels, and weights if not all are 1: see `pipelines.targets.Targets`."""

    inputs: Inputs
    labels: np.ndarray
    weights: np.ndarray | None = None


def carve(rows: pd.DataFrame, n_rows: int, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train on, and about `n_rows` others to evaluate on; no group stands on both sides.

    A group is that of the fold plan (`group`), or, where rows have none, the normalised query. At most a fifth of the
    rows is taken for evaluation. Extra rows (those with a `parent`) of its groups are on neither side.
    """
    groups = rows["group"] if "group" in rows else map_distinct(rows["query"], normalise_query)
    codes, distinct = pd.factorize(groups)
    sizes, room, chosen = np.bincount(codes), min(n_rows, len(rows) // 5), []
    for group in np.random.default_rng(seed).permutation(len(distinct)):
        if sizes[group] <= room:
            room -= sizes[group]
            chosen.append(group)
    judged = np.isin(codes, chosen)
    own = rows["parent"].isna() if "parent" in rows else np.ones(len(rows), dtype=bool)
    return rows[~judged], rows[judged & own]


def evaluation_due(n_per_epoch: int, steps_per_epoch: float, step: int) -> bool:
    """Whether an evaluation is due after `step`: `n_per_epoch` of them, evenly spread, the last at the epoch's end.

    Examples
    --------
    >>> [step for step in range(1, 21) if evaluation_due(2, 10, step)]
    [5, 10, 15, 20]
    """
    done, before = (int(n * n_per_epoch / steps_per_epoch + ROUNDING) for n in (step, step - 1))
    return done > before


class BestWeights:
    """Evaluates a network while it trains, and remembers the trained weights with the best AUC on disk.

    AUC and not F1: on a few thousand rows it is much less noisy, and no threshold is chosen yet.
    """

    def __init__(
        self, model: Any, judged: Labelled, *, training: TrainingSection, logits: Logits, folder: Path
    ) -> None:
        self.model, self.judged, self.training, self.logits, self.folder = model, judged, training, logits, folder
        self.seen = 0
        self.found: list[dict[str, float]] = []

    def see(self, step: int, *, steps_per_epoch: float, first: bool) -> None:
        """Evaluate if it is due after optimiser step `step`; of several processes only the first one writes."""
        if step == self.seen or not evaluation_due(self.training.evaluate, steps_per_epoch, step):
            return  # the Trainer asks a second time at the end of an epoch
        self.seen = step
        self.found.append(self._evaluate(step))
        if first and self.found[-1] is self._best():
            from safetensors.torch import save_file

            trained = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
            save_file(trained, self.folder / WEIGHTS)

    def copy_to(self, checkpoint: Path) -> None:
        """Keep the evaluations so far and the best weights of them with a checkpoint: a resumed training needs both."""
        (checkpoint / RECORD).write_text(json.dumps(self.found), encoding="utf-8")
        if self.found:
            shutil.copyfile(self.folder / WEIGHTS, checkpoint / WEIGHTS)

    def go_on_from(self, checkpoint: Path, *, first: bool) -> None:
        """Take up what `copy_to` kept; later evaluations and weights are forgotten: their steps are done again."""
        self.found = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))
        if first and self.found:
            shutil.copyfile(checkpoint / WEIGHTS, self.folder / WEIGHTS)

    def put_into(self, model: Any) -> list[dict[str, float]]:
        """The model's trained weights become the best ones; gives all evaluations."""
        if self.found:
            import torch
            from safetensors.torch import load_file

            values = load_file(self.folder / WEIGHTS)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if p.requires_grad:
                        p.copy_(values[name])
        return self.found

    def _best(self) -> dict[str, float]:
        return max(self.found, key=lambda one: one["auc"])

    def _evaluate(self, step: int) -> dict[str, float]:
        from sklearn.metrics import log_loss, roc_auc_score

        trains = self.model.training
        self.model.eval()
        half = self.training.half
        scores = score_inputs(self.model, self.judged.inputs, logits=self.logits, half=half)
        self.model.train(trains)
        labels = self.judged.labels
        f1 = best_threshold(labels, scores).f1
        found = {"step": step, "f1": f1, "auc": roc_auc_score(labels, scores), "log_loss": log_loss(labels, scores)}
        log.info("step %d: F1 %.4f, AUC %.4f, log loss %.4f on %s rows",
                 step, found["f1"], found["auc"], found["log_loss"], f"{len(labels):,}")  # fmt: skip
        log_metrics({f"eval/{name}": float(found[name]) for name in ("f1", "auc", "log_loss")}, step)
        return {name: float(value) for name, value in found.items()}
