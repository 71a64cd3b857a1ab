"""Translations on disk: every text once per recipe, in blocks that appear whole or not at all."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa

from competition.artefacts import discard, replacing
from competition.errors import CompetitionError
from competition.parquet_files import Kind, read_frame
from pipelines.locks import alone, sweep

log = logging.getLogger(__name__)

COLUMNS = ["language", "text", "translation"]
KINDS: dict[str, Kind] = dict.fromkeys(COLUMNS, "text")


@dataclass(frozen=True)
class Block:
    """Texts that are translated together: what a kill can cost, and what processes share out among them.

    Attributes
    ----------
    languages, texts
        ``(n_texts,)`` each.
    """

    languages: tuple[str, ...]
    texts: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        """The digest of what is in it."""
        lines = "\n".join(f"{language}\t{text}" for language, text in zip(self.languages, self.texts, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()[:24]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TranslationCache:
    """The folder of one recipe and target language; a file is one `Block`, put in place by rename."""

    folder: Path

    def read(self) -> pd.DataFrame:
        """All translations that are known, columns `COLUMNS`, (language, text) once; "" is tried and without one."""
        blocks = [table for file in sorted(self.folder.glob("*.parquet")) if (table := _read_whole(file)) is not None]
        if not blocks:
            return pd.DataFrame({name: pd.Series(dtype="str") for name in COLUMNS})
        return pd.concat(blocks).drop_duplicates(["language", "text"], ignore_index=True)

    def has(self, block: Block) -> bool:
        """Whether the block is there."""
        return self._file(block).is_file()

    def write(self, block: Block, translations: Sequence[str]) -> None:
        """Keep the translations of a block, in the order of its texts."""
        columns = (block.languages, block.texts, translations)
        table = pd.DataFrame(
            {name: pa.array(list(texts), pa.large_string()) for name, texts in zip(COLUMNS, columns, strict=True)}
        )
        with alone(self.folder / "blocks"):
            sweep(self.folder)
            with replacing(self._file(block)) as temporary:
                table.to_parquet(temporary, index=False)

    @contextmanager
    def claimed(self, block: Block, *, wait: bool) -> Iterator[bool]:
        """Whether the block is this process's to translate now; the claim of a process that dies ends with it.

        Parameters
        ----------
        wait
            Until the process that has it is through.
        """
        from filelock import FileLock, Timeout

        locks = self.folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{block.name}.lock", timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield not self.has(block)
        finally:
            if self.has(block):  # nobody needs its lock again: whoever has one will look, and find the block
                (locks / f"{block.name}.lock").unlink(missing_ok=True)
            lock.release()

    def _file(self, block: Block) -> Path:
        return self.folder / f"{block.name}.parquet"


def _read_whole(file: Path) -> pd.DataFrame | None:
    """A block's file; None for a damaged one, which is deleted: its texts are translated again."""
    try:
        return read_frame(file, KINDS, what="kept translations", advice="delete the file")[COLUMNS]
    except CompetitionError as error:
        log.warning("%s is damaged and deleted, its texts are translated again: %s", file, error)
        discard(file)
        return None


def cut_blocks(pairs: pd.DataFrame, size: int) -> list[Block]:
    """Blocks of at most `size` of the distinct (language, text), those of a language together, short texts first.

    The same pairs give the same blocks, whatever their order.
    """
    distinct = pairs[["language", "text"]].drop_duplicates()
    ordered = distinct.assign(length=distinct["text"].str.len()).sort_values(["language", "length", "text"])
    languages, texts = ordered["language"].tolist(), ordered["text"].tolist()
    return [
        Block(tuple(languages[start : start + size]), tuple(texts[start : start + size]))
        for start in range(0, len(texts), size)
    ]
