"""Files of a run in a store that fsspec can open: S3 and its like, a folder, memory."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault

UNSAFE = re.compile(r"(^|/)\.{0,2}(/|$)|[\\:\0-\x1f\x7f]")


@dataclass(frozen=True)
class Store:
    """The files below one address, by their path in the run, with ``/``.

    A name that would lead out of the run folder is refused wherever it comes from.
    """

    url: str
    files: Any
    root: str

    @classmethod
    def open(cls, url: str) -> "Store":
        """The store at an address such as ``s3://bucket/run``, ``file:///mnt/run`` or ``memory://run``.

        Raises
        ------
        CompetitionError
            No such kind of store, or the package for it is not installed.
        """
        from fsspec.core import url_to_fs

        is_folder = url.startswith(("file:", "local:")) or "://" not in url
        try:
            files, root = url_to_fs(url, **({"auto_mkdir": True} if is_folder else {}))
        except (ImportError, ValueError) as error:
            advice = "s3:// needs the extra: pip install 'relstack[s3]'; for other stores install their fsspec package"
            raise CompetitionError(f"{url} cannot be opened", faults=[Fault(url, str(error))], advice=advice) from error
        files.invalidate_cache()
        return cls(url, files, root.rstrip("/"))

    def names(self) -> list[str]:
        """All files, sorted."""
        found = [path[len(self.root) :].removeprefix("/") for path in self.files.find(self.root)]
        refuse_unsafe(found, where=self.url)
        return sorted(found)

    def read(self, name: str) -> bytes:
        """A small file's bytes."""
        return bytes(self.files.cat_file(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file in one step."""
        with self.files.transaction, self.files.open(self._path(name), "wb") as file:
            file.write(data)

    def put(self, path: Path, name: str) -> None:
        """Send a file."""
        self.files.put_file(str(path), self._path(name))

    def get(self, name: str, path: Path) -> None:
        """Fetch a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.get_file(self._path(name), str(path))

    def delete(self, name: str) -> None:
        """Delete a file."""
        self.files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        refuse_unsafe([name], where=self.url)
        return f"{self.root}/{name}"


def refuse_unsafe(names: Sequence[str], *, where: str) -> None:
    """Refuse names that are no plain relative paths.

    Examples
    --------
    >>> refuse_unsafe(["parts/QC/e5-bi/fold-0/oof.parquet"], where="s3://bucket/run")
    >>> refuse_unsafe(["rows/../../.bashrc"], where="s3://bucket/run")
    Traceback (most recent call last):
        ...
    competition.errors.CompetitionError: names in a store lead out of the run folder
      s3://bucket/run: 'rows/../../.bashrc'; expected relative paths without ..
    What to do: look who wrote to the store; pull what is yours by name: --only rows,folds
    """
    bad = [name for name in names if UNSAFE.search(name)]
    if bad:
        faults = [Fault(where, repr(name), "relative paths without ..") for name in bad]
        raise CompetitionError(
            "names in a store lead out of the run folder",
            faults=faults,
            advice="look who wrote to the store; pull what is yours by name: --only rows,folds",
        )
