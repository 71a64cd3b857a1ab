"""What models have computed of the rows that are being scored: the models of other folds need the same."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import pandas as pd

T = TypeVar("T")


class Recent:
    """Keeps what was computed of one frame of rows until it is asked about another frame."""

    def __init__(self) -> None:
        self._rows: pd.DataFrame | None = None
        self._found: dict[Hashable, Any] = {}

    def of(self, rows: pd.DataFrame, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives for this very frame; `key` says what that is.

        Examples
        --------
        >>> recent, rows = Recent(), pd.DataFrame({"id": [1]})
        >>> recent.of(rows, "sum", lambda: 1), recent.of(rows, "sum", lambda: 2)
        (1, 1)
        >>> recent.of(rows.copy(), "sum", lambda: 3)
        3
        """
        if rows is not self._rows:
            self._rows, self._found = rows, {}
        if key not in self._found:
            self._found[key] = compute()
        found: T = self._found[key]
        return found
