"""The out-of-fold store: one part per task, base learner and fold, written once, manifest last.

A part is a folder ``parts/<task>/<base learner>/fold-<k>/`` with ``oof.parquet`` (scores of the held-out fold),
``dev.parquet`` and ``test.parquet`` (scores of the unlabelled splits by this fold's model), ``weights/`` and
``manifest.json``. A folder without a manifest does not exist. Scores are joined by row id, never by position.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.artefacts import MANIFEST as MANIFEST
from competition.artefacts import SEAL, finish, finished, is_finished, partial, sha256
from competition.damage import refuse_damage
from competition.errors import CompetitionError, Fault, MismatchError, MissingPartError
from competition.json_files import Shape, read_json
from competition.parquet_files import Kind, read_frame

SCORES: dict[str, Kind] = {"id": "id", "score": "number"}
PART_SHAPE: dict[str, Shape] = {
    "task": str,
    "learner": str,
    "fold": int,
    "origin": {"rows": dict[str, str], "folds": str, "recipe": dict[str, Any], "seed": int},
    "n_oof": int,
    "n_scored": int,
    "fit_seconds": float,
    "predict_seconds": float,
    "device": str,
    "versions": dict[str, str],
    "details": dict[str, Any],
    "files": dict[str, str],
}


@dataclass(frozen=True)
class PartKey:
    """Which part: task, base learner, held-out fold."""

    task: str
    learner: str
    fold: int

    def __str__(self) -> str:
        return f"{self.task}/{self.learner}/fold-{self.fold}"


@dataclass(frozen=True)
class Origin:
    """What a part was made from; parts of different origin never meet in one ensemble.

    Attributes
    ----------
    rows
        Split -> digest of the rows (texts, labels, translations) that the part scored or was fitted on.
    folds
        Digest of the fold file.
    recipe
        The complete recipe, as plain values.
    seed
        The run's seed.
    """

    rows: Mapping[str, str]
    folds: str
    recipe: Mapping[str, Any]
    seed: int

    def differences(self, other: "Origin") -> list[Fault]:
        """What differs from `other`, one fault a thing; empty if the two belong together."""
        mine, theirs = _flatten(asdict(self)), _flatten(asdict(other))
        return [
            Fault(key, f"{mine.get(key, 'absent')!r}", f"{theirs.get(key, 'absent')!r}")
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


@dataclass(frozen=True)
class PartManifest:
    """What stands in a part's ``manifest.json``; its presence is what makes the part finished."""

    task: str
    learner: str
    fold: int
    origin: Origin
    n_oof: int
    n_scored: int
    fit_seconds: float
    predict_seconds: float
    device: str
    versions: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Rows scored per second of prediction."""
        return self.n_scored / max(self.predict_seconds, 1e-9)


@dataclass(frozen=True)
class LearnerScores:
    """All scores of one base learner: OOF of every training row, and per other split the mean of the fold models.

    Attributes
    ----------
    scores
        Split -> probability of label 1, float64 ``(n_rows,)``, in the order of the rows asked for.
    rows_per_second
        Mean over the parts.
    """

    learner: str
    scores: Mapping[str, np.ndarray]
    rows_per_second: float


@dataclass(frozen=True)
class PartStore:
    """The parts below one folder (a run's ``parts/``)."""

    root: Path

    def folder(self, key: PartKey) -> Path:
        """Where the finished part stands."""
        return self.root / key.task / key.learner / f"fold-{key.fold}"

    def workdir(self, key: PartKey) -> Path:
        """Where the part is made until it is finished; what lies in its folder `SCRATCH` does not outlive that."""
        return partial(self.folder(key))

    def is_finished(self, key: PartKey) -> bool:
        """Whether the part has its manifest."""
        return is_finished(self.folder(key))

    def learners(self, task: str) -> list[str]:
        """Names of the base learners that have any finished part of `task`, sorted."""
        return sorted(folder.name for folder in (self.root / task).glob("*/") if finished(folder))

    def manifest(self, key: PartKey) -> PartManifest:
        """The finished part's manifest.

        Raises
        ------
        CompetitionError
            The manifest cannot be read.
        """
        path = self.folder(key) / MANIFEST
        advice = f"delete the folder of part {key} and run `{train_command(key)}` again"
        values = read_json(path, PART_SHAPE, what=f"the manifest of part {key}", advice=advice)
        try:
            values.pop(SEAL, None)
            return PartManifest(**{**values, "origin": Origin(**values["origin"])})
        except TypeError as error:
            fault = Fault(str(path), str(error)[:200], "the keys that `relstack train` writes")
            raise CompetitionError(f"the manifest of part {key} is damaged", faults=[fault], advice=advice) from error

    def write(
        self,
        manifest: PartManifest,
        scores: Mapping[str, pd.DataFrame],
        *,
        save_weights: Callable[[Path], None],
    ) -> Path:
        """The folder of the part, finished: scores, weights and manifest, in place after one rename.

        `scores` maps ``oof``, ``dev``, ``test`` to frames with the columns ``id`` and ``score``.
        """
        key = PartKey(manifest.task, manifest.learner, manifest.fold)
        if self.is_finished(key):
            raise MismatchError(
                f"part {key} is finished already; a part is written once",
                advice="delete its folder first if it is to be made again",
            )
        for split, frame in scores.items():
            check_scores(frame, where=f"{key}/{split}")
        work = self.workdir(key)
        work.mkdir(parents=True, exist_ok=True)
        for split, frame in scores.items():
            frame.to_parquet(work / f"{split}.parquet", index=False)
        save_weights(work / "weights")
        return finish(work, self.folder(key), asdict(manifest))

    def read(self, key: PartKey, split: str) -> pd.Series:
        """Scores of one part, indexed by row id; the file must be the one the manifest names by its SHA-256."""
        path = self.folder(key) / f"{split}.parquet"
        expected = self.manifest(key).files.get(path.name)
        if expected is None or not path.is_file() or sha256(path) != expected:
            raise CompetitionError(
                f"part {key} is damaged: {path.name} is not the file its manifest names",
                advice=f"delete the folder of part {key} and run `{train_command(key)}` again",
            )
        advice = f"delete the folder of part {key} and run `{train_command(key)}` again"
        frame = read_frame(path, SCORES, what=f"{path.name} of part {key}", advice=advice)
        check_scores(frame, where=f"{key}/{split}")
        return frame.set_index("id")["score"]

    def refuse_damaged(self, keys: Iterable[PartKey]) -> None:
        """Refuse parts that are not as they were written, before their weights are used.

        Raises
        ------
        CompetitionError
            A file of a part is missing or changed.
        """
        for key in keys:
            advice = f"delete the folder of part {key} and run `{train_command(key)}` again"
            refuse_damage(self.folder(key), what=f"part {key}", advice=advice)

    def gather(
        self,
        task: str,
        learner: str,
        *,
        rows: Mapping[str, pd.DataFrame],
        fold: pd.Series,
        origin: Origin | None,
    ) -> LearnerScores:
        """All scores of one base learner, aligned with `rows` by id.

        Parameters
        ----------
        rows
            Split -> rows; ``train`` and whichever of ``dev`` and ``test`` the run has.
        fold
            Fold of every training row, aligned with ``rows["train"]``.
        origin
            What the parts must have been made from (its recipe is not compared: parts must only agree with each
            other on that).

        Raises
        ------
        MissingPartError
            Parts are missing; the advice names the commands that make them.
        MismatchError
            A part was made from other rows, folds or another recipe; a part scored a row it should not have,
            or missed one.
        """
        keys = [PartKey(task, learner, int(k)) for k in sorted(fold.unique())]
        self._refuse_missing(keys)
        manifests = [self.manifest(key) for key in keys]
        for key, manifest in zip(keys, manifests, strict=True):
            self._refuse_foreign(key, manifest.origin, manifests[0].origin, origin)
        train = rows["train"]
        oof = pd.Series(np.nan, index=pd.Index(train["id"]), dtype="float64")
        for key in keys:
            held_out = train.loc[(fold == key.fold).to_numpy(), "id"]
            part = align(self.read(key, "oof"), held_out, where=f"{key}/oof")
            oof.loc[held_out] = part
        scores = {"train": oof.to_numpy()}
        for split in (name for name in rows if name != "train"):
            parts = [align(self.read(key, split), rows[split]["id"], where=f"{key}/{split}") for key in keys]
            scores[split] = np.mean(parts, axis=0)
        rate = float(np.mean([manifest.rows_per_second for manifest in manifests]))
        return LearnerScores(learner, scores, rate)

    def _refuse_missing(self, keys: Sequence[PartKey]) -> None:
        missing = [key for key in keys if not self.is_finished(key)]
        if missing:
            raise MissingPartError(
                f"{len(missing)} of {len(keys)} parts of {keys[0].task}/{keys[0].learner} are missing",
                faults=[Fault(str(key), "no finished part", "made by " + train_command(key)) for key in missing],
                advice="run the commands named above, or `relstack run` which makes all that is missing",
            )

    @staticmethod
    def _refuse_foreign(key: PartKey, made_from: Origin, first: Origin, expected: Origin | None) -> None:
        faults = made_from.differences(first)
        if expected is not None:
            same_recipe = Origin(expected.rows, expected.folds, made_from.recipe, expected.seed)
            faults += made_from.differences(same_recipe)
        if faults:
            raise MismatchError(
                f"part {key} does not belong to this run",
                faults=faults,
                advice="delete that part's folder and train it again, or use another --run",
            )


def train_command(key: PartKey) -> str:
    """The command that makes the part.

    Examples
    --------
    >>> train_command(PartKey("QC", "e5-bi", 2))
    'relstack train --task QC --model e5-bi --fold 2'
    """
    return f"relstack train --task {key.task} --model {key.learner} --fold {key.fold}"


def check_scores(frame: pd.DataFrame, *, where: str) -> None:
    """Refuse scores that are not one probability per row id; all faults at once."""
    faults: list[Fault] = []
    repeated = frame.loc[frame["id"].duplicated(), "id"]
    if len(repeated):
        faults.append(Fault(where, f"{len(repeated)} repeated ids, first {repeated.iloc[0]!r}", "each id once"))
    bad = frame.loc[~np.isfinite(frame["score"].to_numpy(dtype="float64")), "id"]
    if len(bad):
        faults.append(Fault(where, f"{len(bad)} scores are not numbers, first at id {bad.iloc[0]!r}", "0 to 1"))
    outside = frame.loc[(frame["score"] < 0) | (frame["score"] > 1), "id"]
    if len(outside):
        faults.append(Fault(where, f"{len(outside)} scores out of range, first at id {outside.iloc[0]!r}", "0 to 1"))
    if faults:
        raise CompetitionError("a base learner gave unusable scores", faults=faults, advice="see its recipe and log")


def align(scores: pd.Series, ids: pd.Series, *, where: str) -> np.ndarray:
    """`scores` in the order of `ids`, ``(n_ids,)`` float64; missing, repeated and extra ids are refused by name."""
    wanted = pd.Index(ids)
    faults: list[Fault] = []
    for found, words in (
        (wanted.difference(scores.index), "without a score"),
        (scores.index.difference(wanted), "that do not belong here"),
        (scores.index[scores.index.duplicated()], "repeated"),
    ):
        if len(found):
            shown = ", ".join(map(str, found[:5]))
            faults.append(Fault(where, f"{len(found)} ids {words}: {shown}", "every id once"))
    if faults:
        raise MismatchError("a part's rows are not the rows of this run", faults=faults, advice="train the part again")
    return scores.reindex(wanted).to_numpy(dtype="float64")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
