"""Read predictions back from any of a submission's formats, and say where two of them differ."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.errors import CompetitionError, Fault, MismatchError
from competition.metrics import f1_from_counts
from competition.tasks import Task
from submissions.build import RowId, csv_name, text_name
from submissions.formats import is_row_id
from submissions.sources import Source, find_sources, zip_sources
from submissions.validate import raise_faults
from submissions.values import is_scored

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
ALL = "all"


def read_predictions(path: Path | str, task: Task) -> pd.Series:
    """The task's predictions at `path`, ``(n_rows,)`` by row id: int8, or float64 where the host wants scores.

    They are in the order of the file.

    `path` is a folder, a zip, JSON Lines or CSV. The ids of a CSV are integers if every one is an integer as
    Python writes it, else text.

    Raises
    ------
    CompetitionError
        With all faults of the file. Whether it belongs to some rows is for `validate_files` to say.
    """
    path = Path(path)
    source = _source(path, task)
    contents = source.contents()
    raise_faults(str(path), contents.faults)
    ids = list(contents.by_id)
    index = _index(ids, from_text=source.is_csv)
    if index is None:
        raise CompetitionError(f"{path}: some ids are integers and some are text", advice="use one kind of id")
    kind = np.float64 if is_scored(task) else np.int8
    return pd.Series(list(contents.by_id.values()), index=index, dtype=kind, name="prediction")


def _source(path: Path, task: Task) -> Source:
    """The one file for `task`; what else stands in the folder or zip is not looked at."""
    if path.is_dir():
        names = [name for name in (text_name(task), csv_name(task)) if name]
        files = [path / name for name in names if (path / name).is_file()]
        if not files:
            found = f"holds neither {' nor '.join(names)}" if len(names) > 1 else f"does not hold {names[0]}"
            raise CompetitionError(f"{path} {found}")
        path = files[0]
    if path.suffix != ".zip":
        return find_sources(path, [task])[0][0]
    sources, faults = zip_sources(path, [task])
    if not sources:
        raise_faults(str(path), faults)
    return sources[0]


def _index(ids: Sequence[RowId], *, from_text: bool) -> pd.Index | None:
    if from_text and all(INTEGER.fullmatch(str(text)) and is_row_id(int(text)) for text in ids):
        return pd.Index([int(text) for text in ids], dtype="int64", name="id")
    kinds = {type(row_id) for row_id in ids}
    if len(kinds) > 1:
        return None
    index: pd.Index = pd.Index(np.array(ids, dtype=object), name="id")
    return index.astype("int64" if kinds == {int} else "str")


def compare(a: pd.Series, b: pd.Series, rows: pd.DataFrame) -> pd.DataFrame:
    """Where two predictions of the same rows differ: in total (language "all"), then per language.

    Parameters
    ----------
    a, b
        ``(n_rows,)`` 0 or 1 by row id, in any order.
    rows
        With `id`, `language` and perhaps `label`.

    Returns
    -------
    pd.DataFrame
        `language, rows, differing, share_differing, positive_rate_a, positive_rate_b, kappa`, where kappa is
        the agreement beyond chance (Cohen, 1960), NaN where both predict one and the same class throughout.
        If any row has a label also `labelled, f1_a, f1_b` over the labelled rows, NaN where there are none.

    Raises
    ------
    MismatchError
        The ids of `a`, `b` and `rows` differ, each named.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": [1, 2, 3, 4], "language": ["en", "en", "ko", "ko"]})
    >>> found = compare(pd.Series([1, 0, 1, 1], [1, 2, 3, 4]), pd.Series([1, 0, 1, 0], [1, 2, 3, 4]), rows)
    >>> found[["language", "rows", "differing", "kappa"]]
      language  rows  differing  kappa
    0      all     4          1    0.5
    1       en     2          0    1.0
    2       ko     2          1    0.0
    """
    first, second = _aligned(a, b, rows)
    counts = pd.DataFrame({"language": rows["language"].to_numpy(), "rows": 1})
    counts["a"], counts["b"], counts["both"] = first, second, first * second
    label = pd.to_numeric(rows["label"]).to_numpy(dtype=float, na_value=np.nan) if "label" in rows else None
    if label is not None:
        labelled = ~np.isnan(label)
        positive = np.where(labelled, label, 0)
        counts["labelled"], counts["positive"] = labelled, positive
        counts["labelled_a"], counts["hits_a"] = first * labelled, first * positive
        counts["labelled_b"], counts["hits_b"] = second * labelled, second * positive
    groups = counts.groupby("language").sum()
    total = groups.sum().to_frame(ALL).T.rename_axis("language")
    return _table(pd.concat([total, groups]).astype(float).reset_index())


def _table(sums: pd.DataFrame) -> pd.DataFrame:
    n, a, b, both = (sums[name] for name in ("rows", "a", "b", "both"))
    differing = a + b - 2 * both
    agreement, chance = 1 - differing / n, (a * b + (n - a) * (n - b)) / n**2
    table = pd.DataFrame(
        {
            "language": sums["language"].astype(str),
            "rows": n.astype(int),
            "differing": differing.astype(int),
            "share_differing": differing / n,
            "positive_rate_a": a / n,
            "positive_rate_b": b / n,
            "kappa": ((agreement - chance) / (1 - chance)).where(chance < 1),
        }
    )
    if sums.get("labelled", pd.Series([0])).iloc[0] == 0:
        return table
    table["labelled"] = sums["labelled"].astype(int)
    for side in ("a", "b"):
        hits = sums[f"hits_{side}"]
        f1 = f1_from_counts(hits, sums[f"labelled_{side}"] - hits, sums["positive"] - hits)
        table[f"f1_{side}"] = np.where(sums["labelled"] > 0, f1, np.nan)
    return table


def _aligned(a: pd.Series, b: pd.Series, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """`a` and `b` in the order of `rows`."""
    wanted = pd.Index(rows["id"])
    sides = {name: _as_kind_of(wanted, side) for name, side in (("a", a), ("b", b))}
    if any(pd.api.types.is_float_dtype(side.dtype) for side in sides.values()):
        raise CompetitionError("scores are no decisions, which are what is compared", advice="compare decisions")
    faults = [fault for name, side in sides.items() for fault in _id_faults(name, side.index, wanted)]
    if faults:
        raise MismatchError(
            "the predictions are not for the same rows",
            faults=faults,
            advice="compare two files for one split",
        )
    first, second = (side.reindex(wanted).to_numpy(dtype=np.int64) for side in sides.values())
    return first, second


def _as_kind_of(wanted: pd.Index, side: pd.Series) -> pd.Series:
    # A CSV cannot tell the id "7" from the id 7; the rows can.
    if pd.api.types.is_integer_dtype(side.index.dtype) and not pd.api.types.is_integer_dtype(wanted.dtype):
        return side.set_axis(side.index.astype(str))
    return side


def _id_faults(name: str, found: pd.Index, wanted: pd.Index) -> list[Fault]:
    repeated = found[found.duplicated()].unique()
    return (
        [Fault(f"{name}, id {row_id!r}", "is repeated", "each id once") for row_id in repeated.tolist()]
        + [
            Fault(f"{name}, id {row_id!r}", "is not an id of the rows")
            for row_id in found[~found.isin(wanted)].tolist()
        ]
        + [Fault(f"{name}, id {row_id!r}", "is missing") for row_id in wanted[~wanted.isin(found)].tolist()]
    )
