"""What a run hands over: the package gives the run's own submission, the card is a card, an upload is checked first."""

import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from competition.artefacts import sha256, verify
from competition.errors import CompetitionError
from competition.sample_contests import write_contest_sample
from pipelines.cli import main
from pipelines.handover.card import card
from pipelines.handover.exporting import export
from pipelines.handover.hosts import HostUnreachableError, Kaggle, Limits, NotSignedInError, host_of
from pipelines.handover.model import TEXTS, ExportedModel, apply
from pipelines.handover.packing import base_names
from pipelines.handover.source import requirements
from pipelines.handover.traces import refuse_traces
from pipelines.handover.uploading import check_upload, read_uploads, upload
from pipelines.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
FILES = ("submit_QI.txt", "submit_QI.csv", "submit.zip")


@pytest.fixture(scope="module")
def package(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code package of the run."""
    return export(RunFolder(finished_run), tmp_path_factory.mktemp("package") / "package").path


@pytest.fixture(scope="module")
def card_folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of the run's submission."""
    return card(RunFolder(finished_run), out=tmp_path_factory.mktemp("card") / "card")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> RunFolder:
    """A copy that a test may change."""
    return RunFolder(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def test_file(finished_run: Path, tmp_path: Path) -> Path:
    """A folder with nothing but the file to score."""
    (tmp_path / "data").mkdir()
    shutil.copy(finished_run.parent / "data" / "test_QI.txt", tmp_path / "data")
    return tmp_path / "data"


def bare_environment(**more: str) -> dict[str, str]:
    """No way to our own source but the package's, and one thread."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


# --- the code package


def test_predict_gives_the_submission_of_the_run_from_the_package_alone(
    package: Path, finished_run: Path, test_file: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(package, tmp_path / "elsewhere")
    words = [str(moved / "scripts" / "predict.sh"), str(test_file), "out"]
    done = subprocess.run(words, cwd=tmp_path, env=bare_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (finished_run / "submissions/final" / name).read_bytes()
    assert not list(moved.rglob("__pycache__"))


@pytest.mark.parametrize("choice", ["blend", "lexical"])
def test_whatever_is_chosen_scores_as_in_the_run(choice: str, run: RunFolder, test_file: Path, tmp_path: Path) -> None:
    words = ["--quiet", "submit", "--run", str(run.root), "--ensemble", choice, "--name", "other"]
    assert CliRunner().invoke(main, words).exit_code == 0
    model = export(run, tmp_path / "package", choice=choice).path / "model"
    files = apply(model, test_file, tmp_path / "out")
    assert files.zip.read_bytes() == (run.submission("other") / "submit.zip").read_bytes()


def test_a_model_holds_texts_but_neither_ids_nor_labels(package: Path, finished_run: Path) -> None:
    texts = ExportedModel.open(package / "model").texts("QI")
    assert list(texts.columns) == list(TEXTS)
    assert set(texts["query"]) == set(pd_queries(finished_run))
    names = {path.name for path in (package / "model").rglob("*") if path.is_file()}
    assert not names & {"oof.parquet", "train.parquet", "dev.parquet", "test.parquet"}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".bin", ".joblib"))]


def pd_queries(run: Path) -> list[str]:
    """All queries of the run."""
    frames = RunFolder(run).rows("QI").values()
    return [query for frame in frames for query in frame["query"]]


def test_nothing_in_a_package_names_this_machine(package: Path, card_folder: Path, finished_run: Path) -> None:
    places = [str(finished_run).encode(), str(finished_run.parent / "data").encode(), os.fsencode(Path.home() / ".")]
    for folder in (package, card_folder):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_relative_to(package / "code"):
                assert not [place for place in places if place in path.read_bytes()], path


def test_trackers_and_logs_stay_at_home(run: RunFolder, tmp_path: Path) -> None:
    run.trackers_folder.mkdir()
    (run.trackers_folder / "secret.txt").write_text("wandb", encoding="utf-8")
    (run.trackers_folder / "latest").symlink_to(run.trackers_folder / "secret.txt")
    package = export(run, tmp_path / "package").path
    assert not [path for path in package.rglob("*") if path.is_symlink() or path.name == "secret.txt"]
    assert not [path for path in package.rglob("*") if path.suffix == ".log"]


@pytest.mark.parametrize("text", ["https://me:password@example.org", "hf_" + "a" * 30])
def test_a_secret_is_refused_by_file_and_not_repeated(text: str, run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text(json.dumps({"x": text}), encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"a\.json: holds a secret") as caught:
        refuse_traces(tmp_path / "folder", run)
    assert text not in str(caught.value)


def test_a_path_of_this_machine_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text(json.dumps({"x": f"{run.root}/rows"}), encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"a\.json: holds a path"):
        refuse_traces(tmp_path / "folder", run)


def test_a_package_that_is_too_large_is_not_written(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="too large"):
        export(RunFolder(finished_run), tmp_path / "out" / "package", max_bytes=10_000)
    assert not list(tmp_path.rglob("*package*"))


def test_a_zip_holds_the_same_files_below_one_folder(package: Path, finished_run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", "--run", str(finished_run), "--out", str(tmp_path / "p.zip")])
    assert done.exit_code == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        names = {name.removeprefix("p/") for name in archive.namelist()}
        assert archive.read("p/requirements.txt") == (package / "requirements.txt").read_bytes()
        assert archive.getinfo("p/scripts/predict.sh").external_attr >> 16 & 0o111
    assert names == {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


def test_a_changed_model_is_refused(package: Path, test_file: Path, tmp_path: Path) -> None:
    model = shutil.copytree(package / "model", tmp_path / "model")
    (model / "chosen" / "QI.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CompetitionError, match="not as it was written"):
        apply(model, test_file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_without_a_file_to_score_is_refused(package: Path, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(finished_run.parent / "data" / "train_QI.txt", tmp_path / "data")
    with pytest.raises(CompetitionError, match="no test or dev file of QI"):
        apply(package / "model", tmp_path / "data", tmp_path / "out")


def test_freed_weights_are_named_before_anything_is_written(run: RunFolder, tmp_path: Path) -> None:
    shutil.rmtree(run.parts.root / "QI" / "lexical" / "fold-1" / "weights")
    with pytest.raises(CompetitionError, match="its weights are missing"):
        export(run, tmp_path / "package", choice="lexical")
    assert not (tmp_path / "package").exists()


def test_a_student_is_refused_with_what_to_name_instead(run: RunFolder, tmp_path: Path) -> None:
    words = ["distil", "--run", str(run.root), "--task", "QI", "--student", "lexical-linear", "--name", "small"]
    assert CliRunner().invoke(main, words).exit_code == 0
    words = ["submit", "--run", str(run.root), "--ensemble", "student/small", "--name", "small"]
    assert CliRunner().invoke(main, words).exit_code == 0
    for give in (
        lambda: export(run, tmp_path / "package", choice="student/small"),
        lambda: card(run, submission="small"),
    ):
        with pytest.raises(CompetitionError, match=r"a student cannot be handed over[\s\S]*--ensemble NAME"):
            give()
    assert not (tmp_path / "package").exists()
    assert not run.card("small").exists()


def test_no_two_folders_of_weights_get_one_name(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/e5-1", "b/e5", "c/e5", "d/e5-1", "e/e5-large")]
    for folder in folders:
        folder.mkdir(parents=True)
    names = base_names([{"weights": {"name": str(folder)}} for folder in folders])
    assert list(names) == list(map(str, folders))
    assert len(set(names.values())) == len(folders)
    assert names[str(folders[4])] == "base/e5-large"


def test_weights_of_a_local_folder_come_along(bert: Path, tmp_path: Path) -> None:
    from competition.sample import write_sample

    write_sample(tmp_path / "data", n_train=90, n_dev=20, n_test=20, tasks=("QI",))
    words = ["--quiet", "run", "--data", tmp_path / "data", "--run", tmp_path / "run", "--tasks", "QI", "--folds", 3,
             "--recipes", "e5-bi", "--set", f"e5-bi:weights.name={bert}",
             "--set", "e5-bi:text.view=original", "--set", "head.epochs=1"]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.stderr
    package = export(RunFolder(tmp_path / "run"), tmp_path / "package").path
    assert str(bert) not in (package / "model/parts/QI/e5-bi/fold-0/weights/backbone.json").read_text(encoding="utf-8")
    assert (package / "model" / "base" / bert.name / "model.safetensors").is_file()
    hidden = bert.rename(bert.with_name("hidden"))
    try:
        files = apply(package / "model", tmp_path / "data", tmp_path / "out")
    finally:
        hidden.rename(bert)
    assert files.zip.read_bytes() == (tmp_path / "run/submissions/final/submit.zip").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("contest", ["amazon-esci", "home-depot"])
def test_other_contests_get_their_own_format_from_a_package(contest: str, tmp_path: Path) -> None:
    from competition.sample_contests import write_contest_sample

    write_contest_sample(contest, tmp_path / "data", n_train=500, n_test=80)
    words = ["--quiet", "run", "--competition", contest, "--data", tmp_path / "data", "--run", tmp_path / "run",
             "--folds", 3, "--recipes", "lexical-linear"]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    run = RunFolder(tmp_path / "run")
    package = export(run, tmp_path / "package").path
    files = apply(package / "model", tmp_path / "data", tmp_path / "out")
    ((task, path),) = files.csvs.items()
    assert path.read_bytes() == (run.submission("final") / path.name).read_bytes()
    assert "--competition" in (package / "scripts" / "train.sh").read_text(encoding="utf-8")
    assert f"## Task {task}" in (card(run) / "README.md").read_text(encoding="utf-8")
    assert check_upload(run, Desk(), "shop").file == run.submission("final") / path.name


def test_requirements_are_exact_and_installed() -> None:
    from importlib.metadata import version

    lines = requirements()
    names = [line.partition("==")[0] for line in lines]
    assert {"numpy", "pandas", "torch", "lightgbm", "click"} <= set(names)
    assert len(names) == len(set(names))
    assert f"numpy=={version('numpy')}" in lines
    assert not [line for line in lines if "+" in line]


# --- the card


def test_a_card_reads_back_as_a_card_with_its_results(card_folder: Path, finished_run: Path) -> None:
    from huggingface_hub import ModelCard

    from submissions.leaderboard import Leaderboard

    data = ModelCard.load(card_folder / "README.md").data
    entry = {e.name: e for e in Leaderboard.read_csv(finished_run / "leaderboard.csv").entries}[chosen(finished_run)]
    assert data.license == "apache-2.0"
    assert data.library_name == "relstack"
    assert {"en", "ja", "th"} <= set(data.language)
    results = {(each.dataset_split, each.metric_type): each.metric_value for each in data.eval_results}
    assert results["train", "f1"] == pytest.approx(entry.f1, abs=1e-6)
    assert results["dev", "f1"] == pytest.approx(entry.dev_f1, abs=1e-6)


def chosen(run: Path) -> str:
    """The ensemble of the run's submission."""
    manifest = json.loads((run / "submissions/final/manifest.json").read_text(encoding="utf-8"))
    return str(manifest["chosen"]["QI"]["ensemble"])


def test_a_card_says_what_matters(card_folder: Path, finished_run: Path) -> None:
    text = (card_folder / "README.md").read_text(encoding="utf-8")
    for words in ("## Limits and risks", "languages that training never saw (ar, de, id, it, pl, vn)",
                  "### Folds and leaks", "labelled positive", "decided positive", "Archives are not compared",
                  "Energy was not measured",
                  "every pair among the rows of the run's own test file", RunFolder(finished_run).folds("QI").digest,
                  sha256(finished_run / "submissions/final/submit.zip")):  # fmt: skip
        assert words in text
    assert not verify(card_folder)


def test_a_card_is_replaced_and_nothing_else_is(run: RunFolder, tmp_path: Path) -> None:
    first = card(run)
    assert first == run.card("final") == card(run)
    (tmp_path / "mine").mkdir()
    with pytest.raises(CompetitionError, match="is no card"):
        card(run, out=tmp_path / "mine")
    with pytest.raises(CompetitionError, match="no submission called"):
        card(run, submission="absent")


def test_a_data_set_that_the_hub_would_refuse_is_refused(run: RunFolder) -> None:
    with pytest.raises(CompetitionError, match="the hub would refuse"):
        card(run, datasets=["not a name"])
    assert not run.card("final").exists()


@pytest.mark.slow
def test_reproduce_gives_the_same_bytes(card_folder: Path, finished_run: Path, tmp_path: Path) -> None:
    words = [str(card_folder / "reproduce.sh"), str(finished_run.parent / "data"), str(tmp_path / "again")]
    env = bare_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "submit_QI.txt: OK" in done.stdout
    ours, theirs = (folder / "submissions/final/submit_QI.txt" for folder in (tmp_path / "again", finished_run))
    assert ours.read_bytes() == theirs.read_bytes()


# --- uploads


@dataclass
class Desk:
    """A host in memory."""

    left: int = 5
    reached: bool = True
    got: list[tuple[str, bytes, str]] = field(default_factory=list)
    formats: tuple[str, ...] = (".csv", ".zip")

    def limits(self, competition: str) -> Limits:
        self._answer()
        return Limits(self.left, len(self.got))

    def upload(self, competition: str, file: Path, message: str) -> str:
        self._answer()
        self.got.append((competition, file.read_bytes(), message))
        return "taken"

    def _answer(self) -> None:
        if not self.reached:
            raise HostUnreachableError("no answer")


def test_an_upload_is_remembered_and_not_repeated(run: RunFolder) -> None:
    desk = Desk()
    done = upload(run, desk, "shop", checked=check_upload(run, desk, "shop"), message="first")
    data = (run.submission("final") / "submit_QI.csv").read_bytes()
    assert desk.got == [("shop", data, "first")]
    assert read_uploads(run) == [done]
    assert done.sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(CompetitionError, match="was uploaded to shop"):
        check_upload(run, desk, "shop")
    assert check_upload(run, desk, "another").digest == done.sha256
    words = ["--quiet", "submit", "--run", str(run.root), "--name", "renamed"]
    assert CliRunner().invoke(main, words).exit_code == 0
    with pytest.raises(CompetitionError, match="was uploaded to shop"):
        check_upload(run, desk, "shop", submission="renamed")


def test_all_that_is_wrong_with_an_upload_is_named_at_once(run: RunFolder) -> None:
    with pytest.raises(CompetitionError) as caught:
        check_upload(run, Desk(left=0), "shop", file="submit_QI.txt", max_bytes=10)
    found = "\n".join(map(str, caught.value.faults))
    assert "is a .txt file" in found
    assert "at most 10" in found
    assert "no submission is left today" in found


def test_a_changed_file_is_not_uploaded(run: RunFolder) -> None:
    path = run.submission("final") / "submit.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"changed"
    with pytest.raises(CompetitionError, match="is not the file that was written"):
        check_upload(run, Desk(), "shop", file="submit.zip")


def test_a_flipped_prediction_is_not_uploaded_whatever_the_manifest_says(run: RunFolder) -> None:
    path, manifest = (run.submission("final") / name for name in ("submit_QI.csv", "manifest.json"))
    text = path.read_text(encoding="utf-8")
    flipped = {"0": "1", "1": "0"}[text[-2]]
    path.write_text(f"{text[:-2]}{flipped}\n", encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"submit_QI\.csv: is not the file that was written"):
        check_upload(run, Desk(), "shop")
    for name in ("submit_QI.txt", "submit.zip"):
        (path.parent / name).unlink()
    values = json.loads(manifest.read_text(encoding="utf-8"))
    values["files"] = {path.name: {"sha256": sha256(path)}}
    manifest.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"not as it was written[\s\S]*manifest\.json[\s\S]*relstack submit"):
        check_upload(run, Desk(), "shop")


def test_of_two_that_checked_at_once_one_uploads(run: RunFolder) -> None:
    desk = Desk()
    both = [check_upload(run, desk, "shop"), check_upload(run, desk, "shop")]
    done = upload(run, desk, "shop", checked=both[0], message="first")
    with pytest.raises(CompetitionError, match="was uploaded to shop"):
        upload(run, desk, "shop", checked=both[1], message="second")
    assert len(desk.got) == 1
    assert read_uploads(run) == [done]


def test_a_file_that_changed_after_the_check_is_not_uploaded(run: RunFolder) -> None:
    desk = Desk()
    checked = check_upload(run, desk, "shop")
    checked.file.write_text("other", encoding="utf-8")
    with pytest.raises(CompetitionError, match="was changed since it was checked"):
        upload(run, desk, "shop", checked=checked, message="")
    assert not desk.got


def test_a_file_of_other_rows_is_not_uploaded(run: RunFolder) -> None:
    path = run.submission("final") / "submit_QI.csv"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"submit_QI\.csv"):
        check_upload(run, Desk(), "shop")


def test_a_host_that_does_not_answer_is_worth_retrying(run: RunFolder) -> None:
    desk = Desk(reached=False)
    checked = check_upload(run, desk, "shop")
    assert "not known" in str(checked)
    with pytest.raises(HostUnreachableError) as caught:
        upload(run, desk, "shop", checked=checked, message="")
    assert caught.value.exit_code == 75
    assert checked.file.is_file()
    assert read_uploads(run) == []


def test_an_upload_that_breaks_off_is_not_remembered(run: RunFolder) -> None:
    desk = Desk()
    checked = check_upload(run, desk, "shop")
    desk.reached = False
    with pytest.raises(HostUnreachableError):
        upload(run, desk, "shop", checked=checked, message="")
    assert checked.file.is_file()
    assert read_uploads(run) == []


def test_a_host_that_nobody_knows_is_refused() -> None:
    for address in ("elsewhere:shop", "kaggle", "kaggle:"):
        with pytest.raises(CompetitionError, match="nowhere to upload"):
            host_of(address)


# --- Kaggle's own client, against a server of this machine

needs_kaggle = pytest.mark.skipif(importlib.util.find_spec("kaggle") is None, reason="the kaggle package")


@dataclass
class Seen:
    """What a server was asked, and what it answers: status by the last part of a path."""

    port: int = 0
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Seen]:
    """Kaggle's API as far as a submission needs it; credentials of a user that there is not."""
    seen = Seen()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = self.path.rpartition("/")[2]
            seen.asked.append((name, self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            url = f"http://localhost:{seen.port}/blob?signature=secret-of-the-address"
            answers = {
                "GetSubmissionLimits": {"numToday": 2, "numAllowedNow": 3},
                "StartSubmissionUpload": {"token": "blob", "createUrl": url},
                "CreateSubmission": {"message": "Successfully submitted", "ref": 1},
            }
            self._answer(seen.status.get(name, 200), answers.get(name, {}))

        def do_PUT(self) -> None:
            seen.asked.append(("blob", self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(seen.status.get("blob", 200), {})

        def _answer(self, status: int, values: dict[str, object]) -> None:
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
            return

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    seen.port = server.server_address[1]
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    settings = {"KAGGLE_USERNAME": "nobody", "KAGGLE_KEY": "key-of-nobody",
                "KAGGLE_CONFIG_DIR": str(tmp_path)}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, f"http://localhost:{seen.port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield seen
    server.shutdown()
    server.server_close()


@needs_kaggle
def test_kaggle_gets_the_file_and_the_message(kaggle: Seen, run: RunFolder) -> None:
    words = ["upload", "--run", str(run.root), "--to", "kaggle:shop", "--message", "first try"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == "Successfully submitted"
    assert "submissions left today: 3" in done.stderr
    assert [name for name, _ in kaggle.asked] == [
        "GetSubmissionLimits", "StartSubmissionUpload", "blob", "CreateSubmission"
    ]  # fmt: skip
    file = run.submission("final") / "submit_QI.csv"
    assert kaggle.asked[2][1] == file.read_bytes()
    assert json.loads(kaggle.asked[3][1])["submissionDescription"] == "first try"
    assert not [words for words in ("key-of-nobody", "secret-of") if words in done.output]
    assert "key-of-nobody" not in run.uploads_file.read_text(encoding="utf-8")


@needs_kaggle
def test_a_dry_run_asks_kaggle_and_sends_nothing(kaggle: Seen, run: RunFolder) -> None:
    done = CliRunner().invoke(main, ["upload", "--run", str(run.root), "--to", "kaggle:shop", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert [name for name, _ in kaggle.asked] == ["GetSubmissionLimits"]
    assert not run.uploads_file.exists()


@needs_kaggle
@pytest.mark.parametrize(("where", "status", "code"), [
    ("GetSubmissionLimits", 503, 75), ("GetSubmissionLimits", 403, 3), ("StartSubmissionUpload", 429, 75),
    ("CreateSubmission", 404, 3),
])  # fmt: skip
def test_what_kaggle_refuses_is_told_from_what_is_worth_retrying(
    where: str, status: int, code: int, kaggle: Seen, run: RunFolder
) -> None:
    kaggle.status[where] = status
    done = CliRunner().invoke(main, ["upload", "--run", str(run.root), "--to", "kaggle:shop"])
    assert done.exit_code == code, done.output
    assert kaggle.asked[-1][0] == where
    assert (run.submission("final") / "submit_QI.csv").is_file()
    assert not run.uploads_file.exists()


@needs_kaggle
def test_a_blob_that_is_not_taken_is_worth_retrying_and_its_address_is_not_told(kaggle: Seen, run: RunFolder) -> None:
    kaggle.status["blob"] = 500
    done = CliRunner().invoke(main, ["upload", "--run", str(run.root), "--to", "kaggle:shop"])
    assert done.exit_code == 75, done.output
    assert kaggle.asked[-1][0] == "blob"
    assert "secret-of" not in done.output


@needs_kaggle
def test_without_credentials_kaggle_is_not_asked(kaggle: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CompetitionError, match="no Kaggle credentials"):
        Kaggle().limits("shop")


class Closed(Desk):
    """A host that nobody is signed in to."""

    def limits(self, competition: str) -> Limits:
        raise NotSignedInError("no credentials", advice="sign in")


def test_without_credentials_all_is_checked_that_is_here_and_nothing_is_sent(run: RunFolder) -> None:
    with pytest.raises(CompetitionError, match="at most 10"):
        check_upload(run, Closed(), "shop", max_bytes=10)
    checked = check_upload(run, Closed(), "shop")
    assert "the host's side was not asked: no credentials" in str(checked)
    with pytest.raises(NotSignedInError):
        upload(run, Closed(), "shop", checked=checked, message="")
    assert read_uploads(run) == []


def test_a_card_of_another_contest_says_its_language_and_metric(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    write_contest_sample("home-depot", tmp_path / "data", n_train=300, n_test=60)
    words = ["--competition", "home-depot", "--data", str(tmp_path / "data"), "--folds", "3"]
    words += ["--recipes", "lexical-linear"]
    for command in (["run", *words], ["card"]):
        done = CliRunner().invoke(main, ["--quiet", *command, "--run", str(tmp_path / "run")])
        assert done.exit_code == 0, done.output
    text = (tmp_path / "run/cards/final/README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data.to_dict()
    assert "in\n1 language (en)" in text
    assert data["metrics"] == ["roc_auc"]
    assert "multilingual" not in data["tags"]
    kinds = [(each["type"], each["name"]) for each in data["model-index"][0]["results"][0]["metrics"]]
    assert kinds.count(("roc_auc", "AUC, out of fold")) == 1
    assert not [name for kind, name in kinds if name.startswith("auc")]
