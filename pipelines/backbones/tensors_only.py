"""A checkpoint that a training goes on from holds tensors and plain numbers, or it is refused.

The folder may come from a stranger, as the rest of the run. transformers reads its own files as tensors only; torch
unpickles the index of a network that is shared out among processes, so that index is looked through before.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault

SCALER = "scaler.pt"  # of training in fp16
INDEX = ".metadata"  # of a sharded checkpoint (torch.distributed.checkpoint)
INDEX_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath"},
}


@contextmanager
def tensors_only(checkpoint: str | None) -> Iterator[None]:
    """A block in which the Trainer goes on from `checkpoint`.

    Raises
    ------
    CompetitionError
        A file of it wants classes or functions besides those of tensors; nothing of it has been run.
    """
    if checkpoint and (scaler := Path(checkpoint) / SCALER).exists():
        raise _not_ours(scaler, ValueError("no training of ours scales its loss"))
    for index in Path(checkpoint).rglob(f"*{INDEX}") if checkpoint else ():
        _look_through(index)
    try:
        yield
    except pickle.UnpicklingError as error:
        raise _not_ours(Path(str(checkpoint)), error) from error


class _IndexReader(pickle.Unpickler):
    """Reads a pickle, but looks up nothing that an index has no use for."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in INDEX_CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return super().find_class(module, name)


def _look_through(index: Path) -> None:
    try:
        with index.open("rb") as file:
            _IndexReader(file).load()
    except Exception as error:  # a broken pickle can raise anything
        raise _not_ours(index, error) from error


def _not_ours(path: Path, error: Exception) -> CompetitionError:
    return CompetitionError(
        "a checkpoint of an unfinished training holds more than tensors and numbers",
        faults=[Fault(str(path), str(error).partition("\n")[0])],
        advice="we write no such file: delete that part's .partial folder, and train again",
    )
