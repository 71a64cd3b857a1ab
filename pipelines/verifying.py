"""Everything of a run hashed again, and followed back to the competition's files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from competition.artefacts import Verdict, inspect
from competition.errors import CompetitionError, Fault
from pipelines.lineage import UNREADABLE, Link, links
from pipelines.run_artefacts import Artefact, artefacts, command
from pipelines.run_folder import RunFolder, is_sealed


@dataclass(frozen=True)
class Verification:
    """What came of it.

    Attributes
    ----------
    artefacts
        One line each: artefact, files, bytes, verdict.
    lineage
        One line per step back: artefact, made_of, recorded, found, verdict.
    faults
        Every file that is not as it was written, and every step that does not hold; each says how to mend it.
    """

    artefacts: pd.DataFrame
    lineage: pd.DataFrame
    faults: tuple[Fault, ...]

    def __repr__(self) -> str:
        return f"<Verification: {len(self.artefacts)} artefacts, {len(self.faults)} faults>"

    def _repr_html_(self) -> str:
        return (self.fault_table() if self.faults else self.artefacts).to_html(index=False)

    def fault_table(self) -> pd.DataFrame:
        """One line per fault: where, found, expected."""
        return pd.DataFrame([asdict(fault) for fault in self.faults], columns=["where", "found", "expected"])

    def refuse_faults(self) -> None:
        """Raise what is wrong, all of it."""
        if self.faults:
            raise CompetitionError(
                "this run is not as it was made",
                faults=self.faults,
                advice="delete what is damaged and make it again with the command named beside it",
            )


def verify(run: RunFolder) -> Verification:
    """Every artefact of the run hashed again and traced back.

    Logs, timings and locks are no artefacts. A manifest vouches for its files and for itself; who changes both with
    care is found out by the manifests that were made from it, where there are any: this finds damage, not forgery.
    """
    checked = {artefact: _inspect(artefact) for artefact in artefacts(run)}
    settings = _check_settings(run)
    if settings.faults:  # nothing more can be read without them, or relied upon
        steps, again = [], {artefact.name: "relstack split" for artefact in checked}
    else:
        steps = links(run, [artefact for artefact, found in checked.items() if not found.faults])
        again = {artefact.name: command(run, artefact.name) for artefact in checked}
    faults = [*settings.faults, *_damages(checked, again), *_breaks(run, steps, again)]
    lines = [("run.toml", settings), *((artefact.name, found) for artefact, found in checked.items())]
    table = pd.DataFrame(
        [(name, found.n_files, found.n_bytes, str(found)) for name, found in lines],
        columns=["artefact", "files", "bytes", "verdict"],
    )
    return Verification(table, lineage_table(steps), tuple(faults))


def lineage_table(steps: Sequence[Link]) -> pd.DataFrame:
    """One line per step."""
    lines = [(step.artefact, step.source, step.recorded, step.found, step.verdict) for step in steps]
    return pd.DataFrame(lines, columns=["artefact", "made_of", "recorded", "found", "verdict"])


def short_lineage(lineage: pd.DataFrame) -> pd.DataFrame:
    """The lineage for people: the folds of a base learner, and the splits of a task, are one line without digests."""
    by_fold, by_split = r"/fold-\d+$", r"^(rows/[^/]+)/\w+$"
    names = {
        "artefact": lineage["artefact"].str.replace(by_fold, "", regex=True),
        "made_of": lineage["made_of"].str.replace(by_fold, "", regex=True).str.replace(by_split, r"\1", regex=True),
    }
    grouped = lineage.assign(**names).groupby(["artefact", "made_of", "verdict"], sort=False)
    return grouped.size().rename("steps").reset_index()


def _inspect(artefact: Artefact) -> Verdict:
    if artefact.manifest.is_file():
        return inspect(artefact.manifest)
    found = artefact.path
    files = [found] if found.is_file() else [path for path in found.rglob("*") if path.is_file()]
    return Verdict(len(files), sum(path.stat().st_size for path in files), 0, False, ())


def _check_settings(run: RunFolder) -> Verdict:
    """The verdict on ``run.toml``; what was edited and means the same is sealed again by `relstack split`."""
    data = run.settings_file.read_bytes() if run.settings_file.is_file() else b""
    sealed = is_sealed(data)
    if sealed is False:
        expected = "its text as it was written; mend it, then `relstack split` with the run's options seals it again"
        return Verdict(1, len(data), 0, True, (Fault(str(run.settings_file), "changed", expected),))
    run.settings()  # an older one that cannot be read is refused here
    return Verdict(1, len(data), 0, sealed is True, ())


def _damages(checked: Mapping[Artefact, Verdict], again: Mapping[str, str]) -> list[Fault]:
    return [
        replace(fault, expected=f"{fault.expected}; delete {artefact.path}, then `{again[artefact.name]}`")
        for artefact, found in checked.items()
        for fault in found.faults
    ]


def _breaks(run: RunFolder, steps: Sequence[Link], again: Mapping[str, str]) -> list[Fault]:
    return [
        Fault(
            str(run.root / step.artefact),
            f"made of {step.source}, now: {step.found}",
            f"{step.recorded}, as its manifest says; bring that back, or delete it, then `{again[step.artefact]}`",
        )
        for step in steps
        if step.verdict == "broken" and step.found != UNREADABLE
    ]
