"""What may run of weights that others made: nothing, unless the recipe asks for it and this machine's user agrees.

A recipe alone is not enough, because a run folder brings recipes along and may come from a stranger. So both are
needed: ``weights.trust_remote_code = true``, and the weights' name in the environment variable `CONSENT`.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError, Fault

CONSENT = "RELSTACK_TRUST_REMOTE_CODE"  # hub names and absolute folders, comma-separated
MODULES = "modules.json"
# Modules of sentence-transformers that hold tensors and plain numbers. Others import what their settings name.
PLAIN_MODULE = re.compile(r"sentence_transformers\.([a-z_]+\.)*(Transformer|Pooling|Normalize|Dense|LayerNorm|Dropout)")
# Tables of sentence-transformers' settings that go to `from_pretrained` as they are, ``weights_only: false`` too.
ARGUMENTS = re.compile(r"(model|tokenizer|processor|config)_(args|kwargs)")
KERNELS = re.compile(r".*(attn|experts)_implementation")
ADAPTER = "adapter_config.json"
HOW_TO_ALLOW = f"if you trust its code: weights.trust_remote_code = true in the recipe, and its name in {CONSENT}"

log = logging.getLogger(__name__)


def may_run_code(name: str, folder: Path, *, from_hub: bool, asked: bool) -> bool:
    """Whether the Python files that come with weights may run, with a warning if so.

    Parameters
    ----------
    name
        As the recipe names the weights.
    folder
        Where they lie on this disk.
    asked
        ``weights.trust_remote_code`` of the recipe.

    Raises
    ------
    CompetitionError
        The recipe asks for it, there is code, and the user of this machine has not agreed.
    """
    if not asked:
        return False
    if name in _consents() if from_hub else _lies_below_consent(folder):
        log.warning("%s: the Python files in it run now, with all your rights (weights.trust_remote_code)", name)
        return True
    code = [*code_faults(folder), *named_code(folder)]
    if code:
        raise CompetitionError(
            f"{name} brings Python code along, and a recipe alone cannot allow that",
            faults=code,
            advice=f"read that code; if you trust it, set {CONSENT}={name if from_hub else folder}",
        )
    return False


def _consents() -> list[str]:
    return [entry.strip() for entry in os.environ.get(CONSENT, "").split(",") if entry.strip()]


def _lies_below_consent(folder: Path) -> bool:
    """Absolute folders only: what a relative one means depends on where a command is started."""
    trusted = [Path(entry).expanduser() for entry in _consents()]
    return any(folder.resolve().is_relative_to(root.resolve()) for root in trusted if root.is_absolute())


def code_faults(folder: Path) -> list[Fault]:
    """What in a Hugging Face folder would import or unpickle something by its libraries' defaults."""
    faults = []
    if (folder / ADAPTER).is_file():
        faults.append(Fault(str(folder / ADAPTER), "an adapter, whose settings name another model", "whole weights"))
    for key, value in _items(_read(folder / "config.json")):
        if KERNELS.fullmatch(key) and isinstance(value, str) and "/" in value:
            faults.append(Fault(f"{folder / 'config.json'}: {key}", f"code of {value}", "no repository"))
    for settings in sorted(folder.glob("**/sentence_*_config.json")):
        values = _read(settings)
        filled = [key for key in values if ARGUMENTS.fullmatch(key) and values[key]]
        faults += [Fault(f"{settings}: {key}", f"arguments for the loader: {values[key]}", "none") for key in filled]
    pickled = [path for path in sorted(folder.glob("*/*.bin")) if not (path.parent / "model.safetensors").is_file()]
    faults += [Fault(str(path), "a pickle", "model.safetensors") for path in pickled]
    return faults + _module_faults(folder)


def _module_faults(folder: Path) -> list[Fault]:
    modules = _read_any(folder / MODULES)
    if modules is None:
        return []
    kinds = [module.get("type") if isinstance(module, Mapping) else module for module in modules]
    return [
        Fault(str(folder / MODULES), f"a module of type {kind!r}", "Transformer, Pooling, Normalize, Dense, ...")
        for kind in kinds
        if not (isinstance(kind, str) and PLAIN_MODULE.fullmatch(kind))
    ]


def named_code(folder: Path) -> list[Fault]:
    """The classes of its own that a Hugging Face folder names; transformers refuses those that it does not know."""
    return [
        Fault(f"{path}: auto_map", f"names code: {value}", "a model that transformers knows")
        for path in sorted(folder.glob("*.json"))
        for key, value in _items(_read(path))
        if key == "auto_map" and value
    ]


def _items(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys and values of a table and of the tables in it."""
    for key, value in values.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _items(value)


def _read(path: Path) -> Mapping[str, Any]:
    values = _read_any(path)
    return values if isinstance(values, Mapping) else {}


def _read_any(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError) as error:
        raise CompetitionError(
            "the settings of a model cannot be read",
            faults=[Fault(str(path), str(error))],
            advice="fetch the weights again, or name others: --set weights.name=FOLDER",
        ) from error


@contextmanager
def refusing_code(folder: Path) -> Iterator[None]:
    """A block that loads settings or a tokenizer; what the library refuses becomes a CompetitionError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise unloadable(f"{folder.name} cannot be loaded", folder, error) from error


def unloadable(what: str, folder: Path, error: Exception) -> CompetitionError:
    """The error for a model folder that its library refuses; where it names code, how that would be allowed."""
    code = named_code(folder)
    return CompetitionError(what, faults=[Fault(str(folder), str(error)), *code], advice=HOW_TO_ALLOW if code else "")


def read_tokenizer(folder: Path, *, trusted: bool = False) -> Any:
    """The tokenizer of a local folder.

    Raises
    ------
    CompetitionError
        There is none, or it wants to run code of its own and is not trusted.
    """
    from transformers import AutoTokenizer

    with refusing_code(folder):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)


def read_config(folder: Path, *, trusted: bool = False) -> Any:
    """The configuration of the network in a local folder, refused as `read_tokenizer` refuses."""
    from transformers import AutoConfig

    with refusing_code(folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trusted)


def refuse_links(root: Path, *, besides: Path) -> None:
    """Refuse a run folder with links to files outside of it: a file that is written on there would be another one.

    Linked folders (parts on another disk) are left alone, and not looked into; nor is the folder `besides`.

    Raises
    ------
    CompetitionError
        There are such links; all are named.
    """
    inside = root.resolve()
    links = [path for path in _file_links(root, besides) if not path.resolve().is_relative_to(inside)]
    if links:
        raise CompetitionError(
            f"{root} has links to files outside of it",
            faults=[Fault(str(path), f"leads to {path.readlink()}", "a file of its own") for path in links],
            advice="delete the links, or put the files themselves there",
        )


def _file_links(folder: Path, besides: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent) / name != besides]
        broken = [name for name in folders if not (Path(parent) / name).is_dir()]
        yield from (path for name in (*files, *broken) if (path := Path(parent) / name).is_symlink())
