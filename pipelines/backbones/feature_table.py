"""Features of every pair of a corpus, computed once for all folds, base learners and processes: a mapped file."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from pipelines.backbones.candidates import QUERY

CHUNK = 100_000


def feature_table(path: Path, n_rows: int, chunks: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    """The table in the file `path`, float32 ``(n_rows, n_features)``, read from disk as it is looked at.

    Where there is no such file, it is written first, one of `chunks` (rows in order) after the other, so that no more
    than one of them is in memory. Of several processes one writes, the others wait for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            temporary = path.with_name(f".{path.name}.tmp")
            try:
                _write(temporary, n_rows, chunks())
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def whole_queries(pairs: pd.DataFrame, *, chunk: int = CHUNK) -> Iterator[pd.DataFrame]:
    """Sorted pairs in pieces of `chunk` rows or a few more: all rows of a query are in one.

    Examples
    --------
    >>> pairs = pd.DataFrame({"language": "en", "query": ["a", "a", "b", "c", "c"]})
    >>> [piece["query"].tolist() for piece in whole_queries(pairs, chunk=1)]
    [['a', 'a'], ['b'], ['c', 'c']]
    """
    is_first = ~pairs.duplicated(QUERY).to_numpy()
    starts = np.flatnonzero(is_first)
    wanted = np.searchsorted(starts, np.arange(0, len(pairs), chunk))
    cuts = [*starts[np.unique(wanted[wanted < len(starts)])], len(pairs)]
    for start, end in pairwise(cuts):
        yield pairs.iloc[start:end]


def _write(path: Path, n_rows: int, chunks: Iterator[np.ndarray]) -> None:
    """Write numpy's own format, by ordinary writes: a full disk is an error of theirs, in a mapped file it kills."""
    written = 0
    with path.open("wb") as file:
        for values in chunks:
            if not written:
                header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, values.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(values, dtype="<f4").data)
            written += len(values)
    assert written == n_rows, f"{written} rows of {n_rows}"
