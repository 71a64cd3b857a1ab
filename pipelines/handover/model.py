"""An exported model: what of a run scores new rows, in a folder that holds neither labels nor row ids.

``texts/<task>.parquet`` has the distinct pairs of the run's files: base learners know their corpus from them (which
targets a query stands with, the category tree), stackers whether a row's language or target is new. Beside it lie
``run.toml``, the translations, what was chosen for each task, the weights of its base learners and the fitted combiner,
and a manifest with every hash. A local folder that weights came from is in ``base/``, named relative to the model.
"""

import contextlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.artefacts import MANIFEST, PROVENANCE, is_finished, verify
from competition.cleaning import clean
from competition.errors import CompetitionError, Fault
from competition.json_files import Shape, read_json
from competition.parquet_files import Kind, read_frame
from competition.rows import NO_TRAIN, locate_files, read_rows
from competition.tasks import Task
from oof.crossfit import Fitted
from oof.features import NOVELTY, with_novelty
from oof.frame import PredictionFrame
from oof.segments import SegmentCuts
from oof.store import PartKey
from pipelines.locks import alone
from pipelines.progress import available_threads
from pipelines.provenance import now, provenance
from pipelines.run_folder import RunFolder, without_labels
from pipelines.weights import cache_dir
from submissions.build import Submission, cut, scored
from submissions.values import is_scored
from submissions.write import SubmissionFiles, write_submission

log = logging.getLogger(__name__)

BASE = "base"
TEXTS: dict[str, Kind] = {
    "language": "text",
    "query": "text",
    "query_en": "text",
    "target": "text",
    "in_train": "truth value",
}
CHOSEN_SHAPE: dict[str, Shape] = {
    "name": str,
    "kind": str,
    "learners": list[str],
    "n_folds": int,
    "threshold": float,
    "cuts": dict[str, float],
    "train_rate": float,
}
EXPORT_AGAIN = "export it again: relstack export --run RUN --out DIR"
FRAME_COLUMNS = ["id", "language", "query", "target", "query_en", *NOVELTY]


@dataclass(frozen=True)
class Chosen:
    """What scores a task, and where it is cut.

    Attributes
    ----------
    name, kind
        An ensemble's, or a base learner's with the kind "base".
    learners
        The base learners that it is made of, in their order.
    cuts
        Those of languages that have earned one of their own; `threshold` is that of all others.
    train_rate
        The share of 1 among the training labels: what the submission's own is held against.
    """

    name: str
    kind: str
    learners: tuple[str, ...]
    n_folds: int
    threshold: float
    cuts: Mapping[str, float]
    train_rate: float

    @classmethod
    def read(cls, path: Path) -> "Chosen":
        """What `write` wrote."""
        values = read_json(path, CHOSEN_SHAPE, what="an exported model", advice=EXPORT_AGAIN)
        known = {key: values[key] for key in CHOSEN_SHAPE}
        return cls(**{**known, "learners": tuple(values["learners"])})

    def write(self, path: Path) -> None:
        """Write it as JSON; numbers come back to the last bit."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True)
class ExportedModel:
    """The paths of an exported model; it is a run folder without rows, folds and out-of-fold scores."""

    root: Path
    chosen: Mapping[str, Chosen]

    @classmethod
    def open(cls, root: Path) -> "ExportedModel":
        """The model in the folder `root`, every file hashed again.

        Raises
        ------
        CompetitionError
            There is none, or a file is missing, changed, or not in its manifest.
        """
        if not is_finished(root):
            raise CompetitionError(f"{root} is no exported model: it has no {MANIFEST}", advice=EXPORT_AGAIN)
        if faults := verify(root):
            raise CompetitionError("an exported model is not as it was written", faults=faults, advice=EXPORT_AGAIN)
        return cls(root, {task: Chosen.read(chosen_file(root, task)) for task in RunFolder(root).settings().tasks})

    @property
    def run(self) -> RunFolder:
        """The same folder as a run: its settings, translations and paths."""
        return RunFolder(self.root)

    def texts(self, task: str) -> pd.DataFrame:
        """The distinct pairs of the run's files, and whether train has them."""
        return read_frame(texts_file(self.root, task), TEXTS, what=f"the texts of {task}", advice=EXPORT_AGAIN)

    def weights(self, task: str) -> dict[str, list[Path]]:
        """Base learner -> the weights of its fold models."""
        chosen = self.chosen[task]
        return {
            name: [self.run.parts.folder(PartKey(task, name, fold)) / "weights" for fold in range(chosen.n_folds)]
            for name in chosen.learners
        }


def texts_file(root: Path, task: str) -> Path:
    """Where a model keeps the pairs of a task."""
    return root / "texts" / f"{task}.parquet"


def chosen_file(root: Path, task: str) -> Path:
    """Where a model keeps what scores a task."""
    return root / "chosen" / f"{task}.json"


def apply(root: Path, data: Path, out: Path, *, split: str | None = None) -> SubmissionFiles:
    """A validated submission in the new folder `out`: the rows of `data` scored by the exported model in `root`.

    Without `split` the test file of every task is scored, dev where there is no test. The same files as the run's
    give the run's own submission: a row's scores may depend on the others of its file (ranks, groups of a query).

    Raises
    ------
    CompetitionError
        The model is not whole, a task has no file in `data`, or a file has faults.
    """
    root, started = root.resolve(), now()
    model, data, out = ExportedModel.open(root), data.resolve(), out.resolve()
    files = files_to_score(model, data, split)
    submissions: list[Submission] = []
    rows: dict[str, pd.DataFrame] = {}
    with contextlib.chdir(root), tempfile.TemporaryDirectory() as scratch:
        for name, (where, path) in files.items():
            task = model.run.task(name)
            rows[name] = rows_of(model, task, path, split=where)
            scores = score(model, task, rows[name], scratch=Path(scratch))
            submissions.append(_cut(task, model.chosen[name], rows[name], scores))
            log.info("%s: %s rows of %s scored by %s", name, f"{len(scores):,}", path.name, model.chosen[name].name)
    rates = {name: model.chosen[name].train_rate for name in files}
    made = provenance(seed=model.run.settings().seed, started=started)
    with alone(out):
        return write_submission(out, submissions, rows, manifest={PROVENANCE: made}, train_rates=rates)


def files_to_score(model: ExportedModel, data: Path, split: str | None) -> dict[str, tuple[str, Path]]:
    """Task name -> split and file in `data`; test, or dev where there is no test, if `split` is None."""
    files, faults = locate_files(data, [model.run.task(name) for name in model.chosen])
    faults = [fault for fault in faults if fault.expected != NO_TRAIN]
    found = {}
    for name in model.chosen:
        there = [each for each in ((split,) if split else ("test", "dev")) if (name, each) in files]
        if there:
            found[name] = there[0], files[name, there[0]]
        else:
            faults.append(Fault(str(data), f"no {split or 'test or dev'} file of {name}", f"{split or 'test'}_{name}"))
    if faults:
        raise CompetitionError(
            "the files to score are not as expected",
            faults=faults,
            advice="name the folder with the contest's own files",
        )
    return found


def rows_of(model: ExportedModel, task: Task, path: Path, *, split: str) -> pd.DataFrame:
    """The rows of a file, cleaned and translated as those of the run were."""
    rows = clean(
        read_rows(path, task, labelled=False, split=split), model.run.settings().cleaning, task, may_drop=False
    )
    return model.run.with_english(rows)


def score(model: ExportedModel, task: Task, rows: pd.DataFrame, *, scratch: Path) -> np.ndarray:
    """Level-2 scores of `rows` by what was chosen for the task, ``(n_rows,)``."""
    from pipelines.backbones import load_folds
    from pipelines.backbones.protocol import Corpus, Workspace

    chosen, texts = model.chosen[task.name], model.texts(task.name)
    unlabelled = without_labels(rows)
    space = Workspace(
        cache=cache_dir() / "embeddings",
        scratch=scratch,
        corpus=Corpus.of([texts, unlabelled]),
        seed=model.run.settings().seed,
        threads=available_threads(),
    )
    columns = [
        np.mean([fold.predict(unlabelled, task) for fold in load_folds(folders, space)], axis=0, dtype=np.float64)
        for folders in model.weights(task.name).values()
    ]
    if chosen.kind == "base":
        return np.asarray(columns[0])
    known = with_novelty(unlabelled, texts[texts["in_train"]])
    frame = PredictionFrame(known[FRAME_COLUMNS], np.column_stack(columns), chosen.learners)
    return Fitted.from_folder(model.run.ensemble(task.name, chosen.name)).predict(frame)


def _cut(task: Task, chosen: Chosen, rows: pd.DataFrame, scores: np.ndarray) -> Submission:
    if is_scored(task):
        return scored(task, rows["id"], scores)
    cuts = SegmentCuts(chosen.threshold, chosen.cuts)
    by_row = cuts.thresholds(rows["language"].to_numpy()) if cuts.by_segment else cuts.overall
    return cut(task, rows["id"], scores, by_row)
