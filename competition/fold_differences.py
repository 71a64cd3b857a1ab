"""How folds differ from saved ones: other plans, rows, folds, groups or withheld rows, each difference named."""

from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from competition.errors import Fault, MismatchError
from competition.folds import FoldPlan, Mask, name_ids


class Comparable(Protocol):
    """What `competition.fold_store.Folds` have to be compared by."""

    @property
    def plan(self) -> FoldPlan: ...
    @property
    def ids(self) -> pd.Series: ...
    @property
    def withheld(self) -> Mask | None: ...


def require_same(saved: Comparable, new: Comparable, *, where: Path) -> None:
    """Refuse folds that are not the saved ones; what differs is named."""
    old_fields, new_fields = asdict(saved.plan), asdict(new.plan)
    faults = [
        Fault(f"plan.{key}", f"{new_fields[key]!r}, saved {old_fields[key]!r}")
        for key in new_fields
        if new_fields[key] != old_fields[key]
    ]
    faults += [
        Fault(key, f"{getattr(new, key)}, saved {getattr(saved, key)}")
        for key in ("task", "rows_digest")
        if getattr(new, key) != getattr(saved, key)
    ]
    faults += id_faults(saved=saved.ids, given=new.ids) or _row_faults(saved, new)
    if faults:
        advice = "folds are dealt once: keep the saved ones, or save under another name"
        raise MismatchError(f"other folds are saved as {where}", faults=faults, advice=advice)


def id_faults(*, saved: pd.Series, given: pd.Series) -> list[Fault]:
    """What ids are on one side only."""
    extra, missing = given[~given.isin(saved)], saved[~saved.isin(given)]
    faults = []
    if len(extra):
        faults.append(Fault("rows", f"{len(extra):,} are not in the saved folds: {name_ids(extra)}"))
    if len(missing):
        faults.append(Fault("rows", f"{len(missing):,} of the saved folds are missing: {name_ids(missing)}"))
    return faults


def _row_faults(saved: Comparable, new: Comparable) -> list[Fault]:
    """How folds of the same ids differ."""
    places = pd.Index(saved.ids).get_indexer(pd.Index(new.ids))
    faults = []
    if (places != np.arange(len(places))).any():
        faults.append(Fault("rows", "the same ids in another order", "the order of the saved folds"))
    for key in ("fold", "group"):
        old = getattr(saved, key).to_numpy()[places]
        differs = old != getattr(new, key).to_numpy()
        if differs.any():
            found = f"{differs.sum():,} rows have another one: {name_ids(new.ids[differs])}"
            faults.append(Fault(key, found))
    old_withheld, new_withheld = (
        np.zeros((len(each.ids), each.plan.n_splits), dtype=bool) if each.withheld is None else each.withheld
        for each in (saved, new)
    )
    if (
        old_withheld.shape == new_withheld.shape
        and (differs := (old_withheld[places] != new_withheld).any(axis=1)).any()
    ):
        faults.append(Fault("withheld", f"{differs.sum():,} rows are withheld elsewhere: {name_ids(new.ids[differs])}"))
    return faults
