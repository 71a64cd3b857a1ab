"""What every backbone is: fitted on rows, gives one probability per row, survives save and load."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from competition.categories import CategoryTree
from competition.errors import CompetitionError, Fault
from competition.json_files import read_json
from competition.tasks import Task

R = TypeVar("R", bound=BaseModel)

DETAILS = "backbone.json"
TRAIN_AGAIN = "delete the part's folder and train it again"
PAIR = ["language", "query", "query_en", "target"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """The texts of train, dev and test of one task, without labels and without splits.

    What a base learner learns from it (the category tree, hubs of the embedding space, weights of words) is the
    same in every fold and leaks no label, so it is computed once.

    Attributes
    ----------
    targets
        Every distinct target, sorted.
    pairs
        Every distinct ``language, query, query_en, target``, sorted: which targets are the candidates of a query.
    """

    targets: tuple[str, ...]
    pairs: pd.DataFrame

    @classmethod
    def of(cls, frames: Iterable[pd.DataFrame]) -> "Corpus":
        """The corpus of several frames of rows; a label in them is not looked at."""
        pairs = pd.concat([frame[PAIR] for frame in frames]).drop_duplicates()
        pairs = pairs.sort_values(PAIR, kind="stable", ignore_index=True)
        return cls(tuple(sorted(pairs["target"].unique())), pairs)

    @cached_property
    def queries(self) -> pd.DataFrame:
        """Every distinct ``language, query, query_en``, sorted."""
        return self.pairs.drop(columns="target").drop_duplicates(ignore_index=True)

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of a SHA-256 over the pairs."""
        return hashlib.sha256(pd.util.hash_pandas_object(self.pairs, index=False).to_numpy().tobytes()).hexdigest()[:16]

    def places(self, rows: pd.DataFrame) -> np.ndarray:
        """``(n_rows,)``: the place of every row's pair among `pairs`, -1 where it is none of them."""
        return np.asarray(self._index.get_indexer(pd.MultiIndex.from_frame(rows[PAIR])))

    @cached_property
    def _index(self) -> pd.MultiIndex:
        return pd.MultiIndex.from_frame(self.pairs)

    @cached_property
    def tree(self) -> CategoryTree:
        """The tree that the targets span, if they are category paths."""
        return CategoryTree.of(self.targets)


@dataclass(frozen=True)
class Workspace:
    """What a backbone may use besides its recipe and rows.

    Attributes
    ----------
    cache
        Folder of the embedding cache, shared by all base learners, folds and runs.
    scratch
        This job's own folder, for checkpoints; gone once the part is finished.
    corpus
        The texts of all splits, without labels.
    seed
        The job's seed.
    threads
        CPU threads the job may use.
    init
        Weights of a fitted backbone to begin with, instead of those that the recipe names.
    others
        Task -> labelled rows of the run's other tasks, for a recipe that trains on all of them.
    pieces
        In how many pieces a network's batches are computed from the start, see `pipelines.backbones.trainer`.
    tables
        Folder of the run for features of all pairs of its corpus, which are the same in every fold; without one they
        are computed for the rows asked for.
    """

    cache: Path
    scratch: Path
    corpus: Corpus
    seed: int
    threads: int
    init: Path | None = None
    others: Mapping[Task, pd.DataFrame] = field(default_factory=dict)
    pieces: int = 1
    tables: Path | None = None


class Backbone(Protocol):
    """One base learner's model.

    `fit` never receives the rows of the held-out fold: it can only leak what it is given.
    """

    def fit(self, train: pd.DataFrame, task: Task) -> Self:
        """A fitted backbone (a new value).

        `train` has `id, language, query, query_en, target, label`, and `group` where folds were dealt. Rows that are
        learnt from besides a fold's own bring `soft_label`, `weight` and `extra`, see `pipelines.targets`;
        their `group` is missing, and their ids are those of another split.
        """
        ...

    def predict(self, rows: pd.DataFrame, task: Task) -> np.ndarray:
        """Probability of label 1, float32 ``(n_rows,)``, the same for a row alone and among others."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights below `folder`; no pickle."""
        ...

    def details(self) -> dict[str, Any]:
        """Where weights came from, parameter counts: what the manifest should remember."""
        ...


def read_details(folder: Path) -> dict[str, Any]:
    """What `save` wrote beside the weights: the recipe, of some kind; a CompetitionError if it is damaged."""
    shape = {"recipe": {"kind": str}}
    return read_json(folder / DETAILS, shape, what="the description of saved weights", advice=TRAIN_AGAIN)


def saved_recipe(folder: Path, kind: type[R]) -> R:
    """The recipe that weights were saved with; a CompetitionError if it is none of this kind."""
    try:
        return kind.model_validate(read_details(folder)["recipe"])
    except ValidationError as error:
        faults = [Fault(str(folder / DETAILS), str(item["loc"])[:80], item["msg"][:200]) for item in error.errors()]
        raise CompetitionError("the recipe of saved weights is damaged", faults=faults, advice=TRAIN_AGAIN) from error
