"""Base learners' models, all behind the protocol in `pipelines.backbones.protocol`.

`build` and `load` pick the implementation by the recipe's kind; each imports its heavy libraries when it works.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from competition.tasks import Task
from pipelines.backbones.bi_encoder import BiEncoder
from pipelines.backbones.category_tree import CategoryTreeLearner
from pipelines.backbones.cross_encoder import CrossEncoder
from pipelines.backbones.lexical import Lexical
from pipelines.backbones.protocol import DETAILS, Backbone, Workspace
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
    values = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
    return KINDS[values["recipe"]["kind"]].load(folder, workspace)


def load_folds(folders: Sequence[Path], workspace: Workspace) -> Iterator[Backbone]:
    """The fitted backbones of one base learner's folds, one after the other; use one before you ask for the next."""
    values = json.loads((folders[0] / DETAILS).read_text(encoding="utf-8"))
    if KINDS[values["recipe"]["kind"]] is CrossEncoder:
        yield from CrossEncoder.load_folds(folders, workspace)
    else:
        yield from (load(folder, workspace) for folder in folders)


def applies(recipe: Recipe, task: Task) -> bool:
    """Whether the recipe can serve the task: a category tree needs targets that are category paths."""
    return recipe.kind != "category_tree" or task.target_is_category
