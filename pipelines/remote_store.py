"""Files of a run in a store that fsspec can open: S3 and its like, a folder, memory."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from competition.errors import CompetitionError, Fault
from competition.parquet_files import reason
from pipelines.secrets import redacted

CREDENTIALS = (
    "give credentials as the store's own package finds them; for s3:// those are AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or a profile of ~/.aws (AWS_PROFILE); AWS_ENDPOINT_URL names another host than Amazon"
)
UNSAFE = re.compile(r"(^|/)\.{0,2}(/|$)|[\\:\0-\x1f\x7f]")


class StoreError(CompetitionError):
    """A store does not let us in, or does not answer."""

    exit_code: ClassVar[int] = 1


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
        with self._answering():
            found = [path[len(self.root) :].removeprefix("/") for path in self.files.find(self.root)]
        refuse_unsafe(found, where=self.url)
        return sorted(found)

    def read(self, name: str) -> bytes:
        """A small file's bytes."""
        with self._answering():
            return bytes(self.files.cat_file(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file in one step."""
        with self._answering(), self.files.transaction, self.files.open(self._path(name), "wb") as file:
            file.write(data)

    def put(self, path: Path, name: str) -> None:
        """Send a file."""
        with self._answering():
            self.files.put_file(str(path), self._path(name))

    def get(self, name: str, path: Path) -> None:
        """Fetch a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._answering():
            self.files.get_file(self._path(name), str(path))

    def delete(self, name: str) -> None:
        """Delete a file."""
        with self._answering():
            self.files.rm_file(self._path(name))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Inside, a store that is elsewhere and lets nobody in, or does not answer, is a `StoreError`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            theirs = type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp")
            refused = isinstance(error, PermissionError | ConnectionError | TimeoutError)
            if "local" in self.protocols or not (theirs or refused):
                raise
            fault = Fault(self.url, redacted(reason(error)))
            raise StoreError("the store cannot be used", faults=[fault], advice=CREDENTIALS) from error

    @property
    def protocols(self) -> tuple[str, ...]:
        """The kinds of address that its files have."""
        found = self.files.protocol
        return (found,) if isinstance(found, str) else tuple(found)

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
