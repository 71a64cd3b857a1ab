"""Rows that a fold's training has besides its own: pseudo-labelled rows of dev and test, translated rows of train."""

from typing import Any

import pandas as pd

from competition.artefacts import sha256
from competition.errors import CompetitionError, Fault
from competition.parquet_files import Kind, read_frame
from oof.store import PartKey
from pipelines.config import ExtraSection
from pipelines.pseudo import find_pseudo, pseudo_rows
from pipelines.run_folder import RunFolder
from pipelines.targets import EXTRA, SOFT, WEIGHT, with_targets

AUGMENTED: dict[str, Kind] = {
    "id": "id",
    "parent": "id",
    "language": "text",
    "query": "text",
    "query_en": "text",
    "target": "text",
    "label": "label",
}


def with_extra_rows(
    run: RunFolder, train: pd.DataFrame, extra: ExtraSection, key: PartKey
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of a fold's training followed by the extra ones, and what the manifest says of these.

    A translated row comes only with its parent: where that is held out or withheld, so is it. Columns that come with
    extra rows are those of `pipelines.targets`.

    Raises
    ------
    CompetitionError
        A set that the recipe names is not there; the command that makes it is named.
    """
    parts, details = [with_targets(train, train["label"], weight=1.0, extra=False)], extra_digests(run, key.task, extra)
    if extra.pseudo:
        chosen = pseudo_rows(run, extra.pseudo, key)
        parts.append(with_targets(chosen, chosen[SOFT], weight=extra.weight, extra=True))
        details["pseudo_rows"] = len(chosen)
    if extra.augmented:
        made = read_augmented(run, key.task, extra.augmented)
        made = made[made["parent"].isin(train["id"])]
        group = train.set_index("id")["group"].reindex(made["parent"]).to_numpy()
        parts.append(with_targets(made.assign(group=group), made["label"], weight=extra.weight, extra=True))
        details["augmented_rows"] = len(made)
    both = pd.concat(parts, ignore_index=True)
    return both[[*train, SOFT, WEIGHT, EXTRA]], {**details, "weight": extra.weight}


def extra_digests(run: RunFolder, task: str, extra: ExtraSection) -> dict[str, Any]:
    """The digests of the sets that a recipe names: parts that learned from other sets are refused.

    Raises
    ------
    CompetitionError
        As `with_extra_rows`.
    """
    digests: dict[str, Any] = {}
    if extra.pseudo:
        digests["pseudo"] = find_pseudo(run, task, extra.pseudo).digest
    if extra.augmented:
        digests["augmented"] = sha256(_augmented(run, task, extra.augmented))[:16]
    return digests


def read_augmented(run: RunFolder, task: str, name: str) -> pd.DataFrame:
    """The translated rows of this name; a CompetitionError if they are not there or damaged."""
    advice = f"delete the file, and make it again: relstack augment --run {run.root} --task {task} --name {name}"
    return read_frame(_augmented(run, task, name), AUGMENTED, what=f"translated rows {name}", advice=advice)


def _augmented(run: RunFolder, task: str, name: str) -> Any:
    path = run.augmented(task, name)
    if not path.is_file():
        raise CompetitionError(
            f"no translated rows of {task} are called {name!r}",
            faults=[Fault(str(path), "not there")],
            advice=f"make them: relstack augment --run {run.root} --task {task} --name {name}",
        )
    return path
