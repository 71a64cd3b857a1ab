"""Folds on disk: dealt once, saved with a digest, read by every later stage."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd

from competition.artefacts import sealing
from competition.errors import CompetitionError, Fault, MismatchError
from competition.fold_differences import id_faults, require_same
from competition.folds import Dealt, FoldPlan, Mask, name_ids
from competition.json_files import read_json
from competition.parquet_files import Kind, read_frame
from competition.tasks import Task
from competition.versions import version_of

WITHHELD = "withheld_"
COLUMNS: dict[str, Kind] = {"id": "id", "fold": "whole number", "group": "text"}
MANIFEST_SHAPE = {
    "task": str,
    "plan": {"kind": str, "n_splits": int, "seed": int, "depth": int},
    "rows_digest": str,
    "folds_digest": str,
}


@dataclass(frozen=True, eq=False)
class Folds:
    """Saved folds: one value, its rows in the order of the file (RangeIndex).

    Attributes
    ----------
    task
        Name of the task.
    ids, fold, group
        ``(n_rows,)`` each: row id, int8 fold, text group.
    rows_digest
        Digest of the rows that were dealt.
    digest
        Digest of plan, ids, folds, groups and withheld rows (`digest_folds`): what later stages record and compare.
    withheld
        As in `competition.folds.Dealt`: rows that a fold neither holds out nor trains on; None if there are none.
    """

    task: str
    plan: FoldPlan
    ids: pd.Series
    fold: pd.Series
    group: pd.Series
    rows_digest: str
    digest: str
    withheld: Mask | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.withheld is not None and self.withheld.shape != (len(self.ids), self.plan.n_splits):
            faults.append(Fault("withheld", f"shape {self.withheld.shape}", f"{(len(self.ids), self.plan.n_splits)}"))
        if not self.ids.is_unique:
            faults.append(Fault("ids", f"repeated: {name_ids(self.ids[self.ids.duplicated()])}", "each id once"))
        if not self.fold.between(0, self.plan.n_splits - 1).all():
            found = f"{self.fold.min()} to {self.fold.max()}"
            faults.append(Fault("fold", found, f"0 to {self.plan.n_splits - 1}"))
        pairs = pd.DataFrame({"group": self.group, "fold": self.fold}).drop_duplicates()
        spanning = pairs["group"][pairs["group"].duplicated()].unique()
        if len(spanning):
            found = f"{len(spanning):,} span several folds, first {spanning[0]!r}"
            faults.append(Fault("groups", found, "one fold per group"))
        if faults:
            raise CompetitionError(
                f"{self.task}: these folds cannot be",
                faults=faults,
                advice="make the run again in another --run folder",
            )

    def groups_of(self, rows: pd.DataFrame) -> pd.Series:
        """The group of every row of `rows`, found by id: text named "group", with the index of `rows`."""
        found = self.group.set_axis(pd.Index(self.ids)).reindex(pd.Index(rows["id"]))
        return found.set_axis(rows.index).rename("group")

    def with_groups(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with their `group`."""
        return rows.assign(group=self.groups_of(rows))

    def align(self, rows: pd.DataFrame) -> pd.Series:
        """The fold of every row of `rows`, found by id: int8 named "fold", with the index of `rows`.

        Raises
        ------
        MismatchError
            A row has no fold, or a fold's row is not there.
        """
        return self.dealt(rows).fold

    def training_rows(self, fold: int, rows: pd.DataFrame) -> Mask:
        """Which of `rows` are trained on for a fold, bool ``(n_rows,)``, found by id: neither held out nor withheld.

        Raises
        ------
        CompetitionError
            There is no such fold.
        MismatchError
            As `align`.
        """
        if not 0 <= fold < self.plan.n_splits:
            raise CompetitionError(
                f"{self.task} has no fold {fold}", advice=f"name one of 0 to {self.plan.n_splits - 1}"
            )
        return self.dealt(rows).training(fold)

    def n_withheld(self, fold: int) -> int:
        """How many rows a fold neither holds out nor trains on."""
        return 0 if self.withheld is None else int(self.withheld[:, fold].sum())

    def dealt(self, rows: pd.DataFrame) -> Dealt:
        """What was dealt, found by id for every row of `rows`, with their index.

        Raises
        ------
        MismatchError
            As `align`.
        """
        faults = id_faults(saved=self.ids, given=rows["id"])
        if faults:
            summary = f"{self.task}: the saved folds are of other rows"
            raise MismatchError(summary, faults=faults, advice="use the rows that the folds were dealt from")
        places = pd.Index(self.ids).get_indexer(pd.Index(rows["id"]))
        fold = pd.Series(self.fold.to_numpy()[places], index=rows.index, name="fold")
        return Dealt(fold, self.groups_of(rows), None if self.withheld is None else self.withheld[places])


def digest_folds(
    plan: FoldPlan, *, ids: pd.Series, fold: pd.Series, group: pd.Series, withheld: Mask | None = None
) -> str:
    """Digest, 16 hex digits, of the plan and of every row's id, fold, group and withholding, in this order of rows."""
    values = [asdict(plan), ids.tolist(), fold.tolist(), group.tolist()]
    if withheld is not None:  # without, the digest is that of plans that withhold nothing
        values.append(np.packbits(withheld).tobytes().hex())
    return hashlib.sha256(orjson.dumps(values)).hexdigest()[:16]


def save_folds(
    folder: Path,
    name: str,
    *,
    rows: pd.DataFrame,
    dealt: Dealt,
    plan: FoldPlan,
    task: Task,
    rows_digest: str,
    record: Mapping[str, Any] | None = None,
) -> Folds:
    """The folds now in `folder`: ``<name>.parquet``, then its manifest ``<name>.json``, which holds `record` too.

    The table has the columns id, fold, group, and one column per fold for what it withholds, if any fold does.

    Saving the same folds again writes nothing. A Parquet file without a manifest does not count.

    Raises
    ------
    MismatchError
        Others are saved there already; the faults say how they differ.
    """
    assert dealt.fold.index.equals(rows.index), "folds and rows are not aligned"
    columns = {"ids": rows["id"], "fold": dealt.fold.astype("int8"), "group": dealt.group}
    columns = {key: column.reset_index(drop=True) for key, column in columns.items()}
    new = _folds(task.name, plan, rows_digest, withheld=dealt.withheld, **columns)
    if (folder / f"{name}.json").exists():
        require_same(load_folds(folder, name), new, where=folder / f"{name}.json")
        return new
    table = pd.DataFrame({"id": new.ids, "fold": new.fold, "group": new.group, **_withheld_columns(new.withheld)})
    with sealing(folder / f"{name}.parquet", {**_manifest(new, rows), **(record or {})}) as path:
        table.to_parquet(path, index=False)
    return new


def load_folds(folder: Path, name: str) -> Folds:
    """The folds saved as `name`, verified against their digest.

    Raises
    ------
    CompetitionError
        They are not there, or a file was changed since it was written.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise CompetitionError(f"no folds are saved as {path}", advice="split the rows first")
    try:
        manifest = read_json(path, MANIFEST_SHAPE, what="the manifest of folds", advice="")
        table = read_frame(path.with_suffix(".parquet"), COLUMNS, what="a table of folds", advice="")
        columns = {"ids": table["id"], "fold": table["fold"].astype("int8"), "group": table["group"]}
        plan = FoldPlan(**manifest["plan"])
        withheld = _read_withheld(table, plan.n_splits)
        found = _folds(manifest["task"], plan, manifest["rows_digest"], withheld=withheld, **columns)
    except (TypeError, OverflowError, CompetitionError) as error:  # TypeError: other keys of the plan
        raise _damaged(path, found=f"unreadable: {error}") from error
    if found.digest != manifest["folds_digest"]:
        raise _damaged(path, found="plan or rows do not have the digest in the manifest")
    return found


def _folds(
    task: str,
    plan: FoldPlan,
    rows_digest: str,
    *,
    ids: pd.Series,
    fold: pd.Series,
    group: pd.Series,
    withheld: Mask | None,
) -> Folds:
    digest = digest_folds(plan, ids=ids, fold=fold, group=group, withheld=withheld)
    return Folds(task, plan, ids, fold, group, rows_digest, digest, withheld)


def _withheld_columns(withheld: Mask | None) -> dict[str, npt.NDArray[np.bool_]]:
    return {} if withheld is None else {f"{WITHHELD}{fold}": column for fold, column in enumerate(withheld.T)}


def _read_withheld(table: pd.DataFrame, n_splits: int) -> Mask | None:
    names = [str(name) for name in table if str(name).startswith(WITHHELD)]
    wanted = [f"{WITHHELD}{fold}" for fold in range(n_splits)] if names else []
    if set(names) != set(wanted) or any(table[name].dtype != bool for name in names):
        fault = Fault("columns", ", ".join(names), f"one of truth values for each of {n_splits} folds, or none")
        raise CompetitionError(
            "what the folds withhold cannot be read",
            faults=[fault],
            advice="make the run again in another --run folder",
        )
    return np.column_stack([table[name] for name in wanted]) if names else None


def _manifest(folds: Folds, rows: pd.DataFrame) -> dict[str, Any]:
    n_splits = folds.plan.n_splits
    positive = (rows["label"] == 1).fillna(False).to_numpy(dtype=bool)
    counts = {
        "rows": len(folds.ids),
        "groups": int(folds.group.nunique()),
        "rows_per_fold": np.bincount(folds.fold, minlength=n_splits).tolist(),
        "positives_per_fold": np.bincount(folds.fold[positive], minlength=n_splits).tolist(),
        "withheld_per_fold": [folds.n_withheld(fold) for fold in range(n_splits)],
    }
    versions = {package: version_of(package) for package in ("numpy", "pandas", "relstack")}
    return {
        "task": folds.task,
        "plan": asdict(folds.plan),
        "rows_digest": folds.rows_digest,
        "folds_digest": folds.digest,
        "counts": counts,
        "versions": {"python": platform.python_version(), **versions},
    }


def _damaged(path: Path, *, found: str) -> CompetitionError:
    advice = "restore both files, or delete both and split again: the same rows give the same folds, parts stay valid"
    return CompetitionError("saved folds are damaged", faults=[Fault(str(path), found)], advice=advice)
