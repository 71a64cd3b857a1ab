"""Whatever is changed in a finished run is found, named, and the command that mends it said."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from competition.artefacts import MANIFEST, read_manifest, write_manifest
from competition.errors import CompetitionError
from oof.store import PartKey
from pipelines.cli import main
from pipelines.ensembling import parts_digest
from pipelines.prepare import prepare
from pipelines.run_artefacts import artefacts
from pipelines.run_folder import RunFolder
from pipelines.verifying import verify

NO_ARTEFACTS = {"timings.csv", "report.html"}  # and locks and logs; tables of features are checked when used


def hashed_files(root: Path) -> list[Path]:
    """All files of the run that somebody vouches for."""
    files = (path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    files = (path for path in files if "logs" not in path.parts and "tables" not in path.parts)
    return sorted(path for path in files if path.name not in NO_ARTEFACTS and path.suffix not in (".lock", ".log"))


@pytest.fixture(scope="module")
def copy(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that tests damage and mend again."""
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("verify") / "run"))


@pytest.fixture
def own(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that one test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


def test_a_finished_run_is_whole_and_leads_back_to_its_input_files(finished_run: Path) -> None:
    found = verify(RunFolder(finished_run))
    assert found.faults == ()
    assert set(found.artefacts["verdict"]) == {"whole"}
    assert {"run.toml", "rows/QI", "parts/QI/lexical/fold-0", "ensembles/QI/stack", "submissions/final"} <= set(
        found.artefacts["artefact"]
    )
    assert set(found.lineage["verdict"]) == {"same"}
    above, seen = {"submissions/final"}, set()
    while above:
        seen |= above
        above = set(found.lineage["made_of"][found.lineage["artefact"].isin(above | {f"{a}.json" for a in above})])
        above = {_artefact(name) for name in above} - seen
    inputs = {Path(name).name for name in seen}
    assert {"train_QI.txt", "dev_QI.txt", "test_QI.txt"} <= inputs, "a submission leads back to the files"
    assert {"rows/QI", "parts/QI/lexical/fold-2", "folds/QI/query-group.parquet"} <= seen


def _artefact(name: str) -> str:
    """The artefact that a source belongs to: a split to its task's rows, folds to their file."""
    if name.startswith("rows/"):
        return "/".join(name.split("/")[:2])
    return "folds/QI/query-group.parquet" if name == "folds/QI" else name


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_a_run_changes_unseen(copy: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(hashed_files(copy)))
    before = file.read_bytes()
    place, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    after = bytearray(before)
    after[place] ^= 1 << bit
    file.write_bytes(after)
    try:
        assert str(file) in {fault.where for fault in verify(RunFolder(copy)).faults}
    finally:
        file.write_bytes(before)


def test_missing_and_extra_files_are_named_with_the_command_that_mends(own: Path) -> None:
    part = RunFolder(own).parts.folder(PartKey("QI", "lexical", 1))
    (part / "dev.parquet").unlink()
    (own / "ensembles" / "QI" / "stack" / "more").write_text("extra")
    done = call("verify", own)
    assert done.exit_code == 3
    assert f"{part / 'dev.parquet'}: is not there" in done.stderr
    assert f"delete {part}, then `relstack train --task QI --model lexical --fold 1 --run {own}`" in done.stderr
    assert "stack/more: is not in manifest.json" in done.stderr
    assert f"`relstack ensemble make --run {own} --task QI --name stack`" in done.stderr


def test_a_part_of_another_run_is_found(own: Path, tmp_path: Path) -> None:
    from competition.sample import write_sample

    other = tmp_path / "other"
    write_sample(other / "data", n_train=400, n_dev=60, n_test=60, seed=4, tasks=("QI",))
    words = ["--data", other / "data", "--run", other / "run", "--folds", 3, "--tasks", "QI"]
    assert call("split", *words).exit_code == 0
    assert (
        call("train", "--run", other / "run", "--task", "QI", "--model", "lexical-linear", "--fold", 0).exit_code == 0
    )
    key = PartKey("QI", "lexical-linear", 0)
    part = RunFolder(own).parts.folder(key)
    shutil.rmtree(part)
    shutil.copytree(RunFolder(other / "run").parts.folder(key), part)
    found = verify(RunFolder(own))
    broken = found.lineage[found.lineage["verdict"] == "broken"]
    assert {"ensembles/QI/stack", "ensembles/QI/blend", str(part.relative_to(own))} == set(broken["artefact"])
    assert "rows/QI/train" in set(broken["made_of"])
    assert str(part) in {fault.where for fault in found.faults}


def test_a_part_of_the_same_origin_that_is_not_the_one_is_found(own: Path) -> None:
    part = RunFolder(own).parts.folder(PartKey("QI", "lexical", 0))
    manifest = read_manifest(part / MANIFEST)
    write_manifest(part / MANIFEST, {**manifest, "fit_seconds": manifest["fit_seconds"] + 1})
    faults = verify(RunFolder(own)).faults
    assert {fault.where for fault in faults} == {str(own / "ensembles/QI/stack"), str(own / "ensembles/QI/blend")}
    assert all(fault.found.startswith("made of parts/QI/lexical/fold-0, now: ") for fault in faults)


@pytest.mark.parametrize("gone", ["rows/QI", "folds/QI", "folds/QI/query-group.json"])
def test_rows_and_folds_that_are_gone_are_missed_by_what_was_made_of_them(gone: str, own: Path) -> None:
    if (own / gone).is_dir():
        shutil.rmtree(own / gone)
    else:
        (own / gone).unlink()
    faults = verify(RunFolder(own)).faults
    parts = {str(own / f"parts/QI/lexical/fold-{fold}") for fold in range(3)}
    assert parts <= {fault.where for fault in faults}
    source = "rows/QI/train" if gone.startswith("rows") else "folds/QI"
    assert any(fault.found == f"made of {source}, now: not there" for fault in faults)


def test_folds_whose_manifest_a_kill_prevented_are_no_fault(own: Path) -> None:
    for folder in ("parts", "ensembles", "submissions"):
        shutil.rmtree(own / folder)
    (own / "leaderboard.csv").unlink()
    (own / "folds" / "QI" / "query-group.json").unlink()
    found = verify(RunFolder(own))
    assert found.faults == ()
    assert list(found.artefacts["artefact"]) == ["run.toml", "rows/QI"]


def test_input_files_that_changed_or_went_away_are_told_apart(own: Path, tmp_path: Path) -> None:
    manifest = own / "rows" / "QI" / MANIFEST
    values = read_manifest(manifest)
    sources = {str(tmp_path / Path(name).name): entry for name, entry in values["sources"].items()}
    settings_file = own / "run.toml"
    write_manifest(manifest, {**values, "sources": sources})
    RunFolder(own).write_settings(RunFolder(own).settings().model_copy(update={"data": str(tmp_path)}))
    assert settings_file.is_file()
    found = verify(RunFolder(own))
    assert found.faults == ()
    assert list(found.lineage["verdict"][found.lineage["artefact"] == "rows/QI"]) == ["not here"] * 3
    (tmp_path / "train_QI.txt").write_text("another competition")
    (fault,) = verify(RunFolder(own)).faults
    assert fault.where == str(own / "rows/QI")
    assert "train_QI.txt" in fault.found


def test_runs_of_older_versions_are_said_to_be_not_hashed(own: Path) -> None:
    """As they were before manifests had hashes of all files, and rows a manifest."""
    run = RunFolder(own)
    for artefact in artefacts(run):  # parts before ensembles
        values = read_manifest(artefact.manifest)
        for key in ("provenance", "inputs", "files"):
            values.pop(key, None)
        if artefact.name.startswith("ensembles/"):
            values["sources"] = {name: parts_digest(run, "QI", name) for name in values["learners"]}
        artefact.manifest.write_text(json.dumps(values))
    (own / "rows" / "QI" / MANIFEST).unlink()
    (own / "leaderboard.json").unlink()
    text = (own / "run.toml").read_text().splitlines()[:-1]
    (own / "run.toml").write_text("\n".join(text) + "\n")
    found = verify(run)
    assert found.faults == ()
    assert set(found.artefacts["verdict"]) == {"not hashed (made by an older version)"}
    assert set(found.lineage["artefact"][found.lineage["verdict"] == "not recorded"]) == {"submissions/final"}
    assert set(found.lineage["verdict"][found.lineage["artefact"].str.startswith("ensembles/")]) == {"same"}
    part = run.parts.folder(PartKey("QI", "lexical", 1)) / MANIFEST
    part.write_text(part.read_text().replace('"fold": 1', '"fold":  1'))
    assert {fault.where for fault in verify(run).faults} == {str(own / f"ensembles/QI/{n}") for n in ("stack", "blend")}


def test_json_has_everything(finished_run: Path) -> None:
    done = call("verify", finished_run, "--format", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout).keys() == {"artefacts", "lineage", "faults"}
    assert call("verify", finished_run).exit_code == 0


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    done = call("verify", tmp_path)
    assert done.exit_code == 3
    assert "is not a run folder" in done.stderr


def test_an_edited_run_file_that_means_the_same_is_sealed_again(own: Path) -> None:
    file = own / "run.toml"
    file.write_text("# mine\n" + file.read_text())
    run = RunFolder(own)
    assert {fault.where for fault in verify(run).faults} == {str(file)}
    run.agree_on(run.settings())
    assert verify(run).faults == ()


def test_damaged_rows_of_an_older_run_are_found_without_hashes(own: Path) -> None:
    (own / "rows" / "QI" / MANIFEST).unlink()
    file = own / "rows" / "QI" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert {fault.where for fault in verify(RunFolder(own)).faults} == {str(own / "rows/QI")}


def test_manifests_that_no_version_wrote_are_faults_not_crashes(own: Path) -> None:
    names = ["parts/QI/lexical/fold-0", "ensembles/QI/stack", "submissions/final"]
    for name, values in zip(names, ({"origin": 3}, {"inputs": [1]}, {"inputs": {"../../x": "0"}}), strict=True):
        manifest = own / name / MANIFEST
        files = read_manifest(manifest)["files"]
        write_manifest(manifest, {**values, "files": files})
    (own / "folds" / "QI" / "query-group.json").write_text('{"files": {"../../run.toml": "0"}}')
    found = {fault.where for fault in verify(RunFolder(own)).faults}
    assert {str(own / name) for name in names} <= found
    assert any("query-group" in where or "run.toml" in where for where in found)


def test_a_damaged_copy_of_rows_is_told_from_changed_input_files(own: Path) -> None:
    run = RunFolder(own)
    file = run.rows_file("QI", "test")
    rows = pd.read_parquet(file)
    rows.assign(query="something else").to_parquet(file, index=False)
    with pytest.raises(CompetitionError, match=r"in the run are damaged(.|\n)*parts stay"):
        prepare(run, run.settings())
    shutil.rmtree(file.parent)
    parts = {path: path.read_bytes() for path in (own / "parts").rglob("*.parquet")}
    prepare(run, run.settings())
    assert call("train", "--run", own, "--task", "QI", "--model", "lexical").exit_code == 0
    assert {path: path.read_bytes() for path in (own / "parts").rglob("*.parquet")} == parts


def test_an_ensemble_whose_learner_lost_a_part_is_named(own: Path) -> None:
    shutil.rmtree(own / "parts/QI/lexical/fold-0")
    done = call("leaderboard", "--run", own)
    assert done.exit_code == 3
    assert "lexical: a part is missing" in done.output


def test_a_submission_of_an_ensemble_that_was_made_again_is_superseded(own: Path) -> None:
    manifest = own / "ensembles/QI/stack/manifest.json"
    write_manifest(manifest, {**read_manifest(manifest), "note": "made of one base learner more"})
    for entry in (own / "submissions/final/manifest.json", own / "leaderboard.json"):
        assert entry.is_file()
    lineage = verify(RunFolder(own)).lineage
    made_of = lineage[(lineage["artefact"] == "submissions/final") & (lineage["made_of"] == "ensembles/QI/stack")]
    assert set(made_of["verdict"]) <= {"superseded"}
    assert call("verify", own).exit_code == 0
    shutil.rmtree(manifest.parent)
    assert (call("verify", own).exit_code == 3) == bool(len(made_of))
