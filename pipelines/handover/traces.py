"""What must not leave the building: secrets, and paths of this machine."""

import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from competition.artefacts import sha256
from competition.errors import CompetitionError, Fault
from pipelines.run_folder import RunFolder
from pipelines.secrets import redacted
from pipelines.weights import cache_dir

TEXT = (".json", ".toml", ".txt", ".md", ".sh", ".csv", ".jinja")
MOST_BYTES = 64 * 2**20  # a longer text is a table of trees or tokens


def refuse_traces(folder: Path, run: RunFolder, *, besides: Iterable[str] = ()) -> None:
    """Refuse a folder whose texts hold a secret or a path of this machine; our own source is not looked at.

    Parameters
    ----------
    besides
        Sub-folders that are left alone.

    Raises
    ------
    CompetitionError
        The files are named, what they hold is not repeated.
    """
    places, faults = re.compile("|".join(_places(run))), []
    for path in _texts(folder, besides):
        text = path.read_text(encoding="utf-8", errors="replace")
        name = path.relative_to(folder).as_posix()
        if redacted(text) != text:
            faults.append(Fault(name, "holds a secret", "nothing that gives access"))
        if places.search(text):
            faults.append(Fault(name, "holds a path of this machine", "names and relative paths"))
    if faults:
        raise CompetitionError(
            "this is not fit to be given away; nothing was written",
            faults=faults,
            advice="name weights and recipes by relative paths or hub names, and give secrets by environment variable",
        )


def copy_clean(source: Path, target: Path, run: RunFolder) -> None:
    """Copy a text that holds neither; of another one only its SHA-256 is written, as ``<name>.sha256``."""
    text = source.read_text(encoding="utf-8", errors="replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    if redacted(text) == text and not re.search("|".join(_places(run)), text):
        shutil.copyfile(source, target)
    else:
        target.with_name(f"{target.name}.sha256").write_text(f"{sha256(source)}  {target.name}\n", encoding="utf-8")


def _texts(folder: Path, besides: Iterable[str]) -> Iterator[Path]:
    left_out = [folder / name for name in besides]
    for path in sorted(folder.rglob("*")):
        is_small_text = path.is_file() and path.suffix in TEXT and path.stat().st_size <= MOST_BYTES
        if is_small_text and not any(path.is_relative_to(each) for each in left_out):
            yield path


def _places(run: RunFolder) -> list[str]:
    """Patterns of the folders that a file may have a path of by mistake."""
    data = Path(run.settings().data)
    own = [Path.home(), Path.cwd(), run.root.resolve(), data, data.parent, cache_dir(), Path(sys.prefix)]
    return [rf"{re.escape(str(place))}(?![\w.-])" for place in own if place.is_absolute() and len(place.parts) > 1]
