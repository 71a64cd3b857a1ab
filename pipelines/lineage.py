"""What the artefacts of a run were made of: from a submission back to the competition's files.

A manifest names what it was made of by digest: submissions, ensembles, pseudo-labels and students by the SHA-256 of
other manifests (``inputs``), parts, pretrained weights and folds by the digests of rows and folds, rows and
translations by the SHA-256 of the files that they were read from (``sources``).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.artefacts import MANIFEST, read_manifest, sha256
from competition.errors import CompetitionError
from competition.rows import digest_rows
from pipelines.ensembling import parts_digest
from pipelines.run_artefacts import Artefact
from pipelines.run_folder import RunFolder, digest_model_rows

GONE, UNREADABLE, NOT_HERE, NOT_RECORDED = "not there", "unreadable", "not here", "not recorded"
TRANSLATIONS = "translations.parquet"
DAMAGED = (CompetitionError, OSError, ValueError, LookupError, TypeError, AttributeError)  # what reading can raise


@dataclass(frozen=True)
class Link:
    """One step back: an artefact, and one of the things that it was made of.

    Attributes
    ----------
    recorded
        The digest that the artefact's manifest has of its source.
    found
        That of the source as it is now, or why there is none.
    may_be_newer
        Whether another source, whole as it is, is no fault: a submission stays what it was when more is learnt later.
    """

    artefact: str
    source: str
    recorded: str
    found: str
    may_be_newer: bool = False

    @property
    def verdict(self) -> str:
        """``same``, ``broken``, ``superseded`` (made before the source was made again), or that it cannot be told."""
        if self.found in (NOT_HERE, NOT_RECORDED):
            return self.found
        if self.recorded == self.found:
            return "same"
        return "superseded" if self.may_be_newer else "broken"


def links(run: RunFolder, whole: Iterable[Artefact]) -> list[Link]:
    """All links of the artefacts `whole`, whose files are as their manifests say."""
    known = {artefact.name: artefact for artefact in whole}
    digests = Digests.of(run, known)
    found: list[Link] = []
    for artefact in reversed(known.values()):
        if artefact.manifest.is_file():
            try:
                found += _links_of(run, artefact, digests, whole=known)
            except DAMAGED as error:  # whole, but not as any version of ours wrote it
                found.append(Link(artefact.name, "what its manifest names", "a manifest of this kind", repr(error)))
        if artefact.name in digests.damaged:
            found.append(Link(artefact.name, "its files", "such as can be read", "damaged"))
    return found


def _links_of(run: RunFolder, artefact: Artefact, digests: "Digests", *, whole: Container[str]) -> list[Link]:
    name, manifest = artefact.name, read_manifest(artefact.manifest)
    return [
        *_inputs(run, name, manifest, whole=whole),
        *_rows_and_folds(run, name, manifest, digests=digests),
        *_extras(run, name, manifest),
        *_sources(run, name, manifest),
    ]


@dataclass(frozen=True)
class Digests:
    """The digests of what all else is made of, as it is now; what is damaged has none.

    Attributes
    ----------
    rows
        Task -> split -> digest of the rows with their translations.
    plain
        Task -> digest of the training rows as they were dealt into folds.
    folds
        Task -> digest.
    damaged
        Artefacts that could not be read although they have their hashes, or have none.
    """

    rows: Mapping[str, Mapping[str, str]]
    plain: Mapping[str, str]
    folds: Mapping[str, str]
    damaged: frozenset[str]

    @classmethod
    def of(cls, run: RunFolder, whole: Mapping[str, Artefact]) -> "Digests":
        """The digests of the run, of those things that are whole."""
        rows: dict[str, dict[str, str]] = {}
        plain, folds, damaged = {}, {}, set()
        has_english = not run.translations_file.is_file() or TRANSLATIONS in whole
        for task in (task.name for task in run.tasks()):
            if f"rows/{task}" in whole and has_english:
                try:
                    frames = run.rows(task)
                    rows[task] = {split: digest_model_rows(frame) for split, frame in frames.items()}
                    plain[task] = digest_rows(frames["train"])
                except DAMAGED:
                    damaged.add(f"rows/{task}")
            for name in (name for name in whole if name.startswith(f"folds/{task}/")):
                try:
                    folds[task] = run.folds(task).digest
                except CompetitionError:
                    damaged.add(name)
        return cls(rows, plain, folds, frozenset(damaged))


def _inputs(run: RunFolder, name: str, manifest: Mapping[str, Any], *, whole: Container[str]) -> Iterator[Link]:
    """Links to other artefacts by their manifests."""
    if name.partition("/")[0] not in ("submissions", "ensembles", "pseudo", "students"):
        return
    if "inputs" not in manifest:
        yield from _older_inputs(run, name, manifest)
    for path, digest in manifest.get("inputs", {}).items():
        file, source = run.root / path, path.removesuffix(f"/{MANIFEST}")
        newer = name.startswith("submissions/") and source in whole
        yield Link(name, source, digest, sha256(file) if file.is_file() else GONE, newer)


def _older_inputs(run: RunFolder, name: str, manifest: Mapping[str, Any]) -> Iterator[Link]:
    """Links as manifests of older versions have them: one digest for all parts of a base learner, if any."""
    if "sources" not in manifest:
        yield Link(name, "its inputs", "", NOT_RECORDED)
    task = name.split("/")[1]
    for learner, digest in manifest.get("sources", {}).items():
        yield Link(name, f"parts/{task}/{learner}", digest, parts_digest(run, task, learner))


def _rows_and_folds(run: RunFolder, name: str, manifest: Mapping[str, Any], *, digests: Digests) -> Iterator[Link]:
    """Links to the rows and folds by their digests."""
    kind, _, rest = name.partition("/")
    if kind == "folds":
        task = manifest["task"]
        found = digests.plain.get(task) or _why_no_rows(run, task, "train")
        yield Link(name, f"rows/{task}/train", manifest["rows_digest"], found)
    if kind not in ("parts", "pretrained", "students", "pseudo", "augmented"):
        return
    task, origin = rest.partition("/")[0], manifest.get("origin", manifest)
    on = manifest.get("on", task)
    for split, digest in origin["rows"].items() if kind in ("parts", "pretrained", "students") else ():
        found = digests.rows.get(on, {}).get(split) or _why_no_rows(run, on, split)
        yield Link(name, f"rows/{on}/{split}", digest, found)
    yield Link(name, f"folds/{task}", origin["folds"], digests.folds.get(task) or _why_no_folds(run, task))


def _why_no_rows(run: RunFolder, task: str, split: str) -> str:
    """Why rows have no digest; files that are there and unreadable are faults of their own."""
    return UNREADABLE if run.rows_file(task, split).is_file() else GONE


def _why_no_folds(run: RunFolder, task: str) -> str:
    """Why folds have no digest; a table without its manifest does not count."""
    return UNREADABLE if any(run.folds_folder(task).glob("*.json")) else GONE


def _extras(run: RunFolder, name: str, manifest: Mapping[str, Any]) -> Iterator[Link]:
    """Links of a part to what its recipe names besides the fold's rows."""
    if not name.startswith("parts/"):
        return
    from pipelines.pretraining import find_pretrained
    from pipelines.pseudo import find_pseudo

    recipe, task = manifest["origin"]["recipe"], manifest["task"]
    extra, digests = recipe.get("extra") or {}, recipe.get("extra_digests", {})
    if "pseudo" in digests:
        found = _or_gone(lambda: find_pseudo(run, task, extra["pseudo"]).digest)
        yield Link(name, f"pseudo/{task}/{extra['pseudo']}", digests["pseudo"], found)
    if "augmented" in digests:
        file = run.augmented(task, extra["augmented"])
        found = sha256(file)[:16] if file.is_file() else GONE
        yield Link(name, f"augmented/{task}/{file.name}", digests["augmented"], found)
    if "init_digest" in recipe:
        found = _or_gone(lambda: find_pretrained(run, recipe["init_from"], task=task, fold=manifest["fold"]).digest)
        yield Link(name, f"pretrained/{task}/{recipe['init_from']}", recipe["init_digest"], found)


def _sources(run: RunFolder, name: str, manifest: Mapping[str, Any]) -> Iterator[Link]:
    """Links of rows and translations to the files that they were read from."""
    if name.partition("/")[0] not in ("rows", "translations.parquet"):
        return
    for path, entry in manifest.get("sources", {}).items():
        places = [Path(path), Path(run.settings().data) / Path(path).name]
        here = [place for place in places if place.is_file()]
        yield Link(name, path, entry["sha256"], sha256(here[0]) if here else NOT_HERE)


def _or_gone(digest: Callable[[], str]) -> str:
    try:
        return digest()
    except CompetitionError:
        return GONE
