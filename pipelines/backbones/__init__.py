"""Base learners' models, all behind the protocol in `pipelines.backbones.protocol`.

`build` and `load` pick the implementation by the recipe's kind; each imports its heavy libraries when it works.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault
from competition.tasks import Task
from pipelines.backbones.bi_encoder import BiEncoder
from pipelines.backbones.category_tree import CategoryTreeLearner
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.lexical import Lexical
from pipelines.backbones.protocol import DETAILS, TRAIN_AGAIN, Backbone, Workspace, read_details
from pipelines.config import Recipe

KINDS: dict[str, type[Lexical] | type[BiEncoder] | type[CategoryTreeLearner] | type[CrossEncoder]] = {
    "lexical": Lexical,
    "bi_encoder": BiEncoder,
    "category_tree": CategoryTreeLearner,
    "cross_encoder": CrossEncoder,
    "causal_lora": CrossEncoder,
    "two_towers": CrossEncoder,
}


def build(recipe: Recipe, workspace: Workspace) -> Backbone:
    """An unfitted backbone for the recipe."""
    return KINDS[recipe.kind](recipe, workspace)  # type: ignore[arg-type]  # the kind is the recipe's own


def load(folder: Path, workspace: Workspace) -> Backbone:
    """The fitted backbone that was saved in `folder`."""
    backbone: Backbone = _kind(folder).load(folder, workspace)
    return backbone


def load_folds(folders: Sequence[Path], workspace: Workspace) -> Iterator[Backbone]:
    """The fitted backbones of one base learner's folds, one after the other."""
    if _kind(folders[0]) is CrossEncoder:
        yield from CrossEncoder.load_folds(folders, workspace)
    else:
        yield from (load(folder, workspace) for folder in folders)


def _kind(folder: Path) -> Any:
    kind = read_details(folder)["recipe"]["kind"]
    if kind not in KINDS:
        fault = Fault(str(folder / DETAILS), f"kind {kind[:40]!r}", f"one of {', '.join(KINDS)}")
        raise CompetitionError("saved weights are of an unknown kind", faults=[fault], advice=TRAIN_AGAIN)
    return KINDS[kind]


def applies(recipe: Recipe, task: Task) -> bool:
    """Whether the recipe can serve the task: a category tree needs targets that are category paths."""
    return recipe.kind != "category_tree" or task.target_is_category
