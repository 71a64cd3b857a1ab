"""Runs in a store: what is there is whole, what comes back is the same, nothing leads out of the run folder."""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner, Result

from competition.artefacts import MANIFEST, partial, read_manifest, write_manifest
from competition.contest import CONTESTS
from competition.errors import CompetitionError, MismatchError
from oof.store import PartKey
from pipelines import remote
from pipelines.cli import main
from pipelines.config import recipe_path
from pipelines.locks import alone
from pipelines.remote import pull, push
from pipelines.remote_store import Store, StoreError
from pipelines.run_artefacts import artefact_of, artefacts
from pipelines.run_folder import RunFolder
from pipelines.verifying import verify

LOCAL = {"timings.csv", "report.html"}  # notes of one machine, and what is made of the rest


def files_of(root: Path) -> dict[str, bytes]:
    """Every file of a run that travels."""
    files = (
        path
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".log") and "tables" not in path.parts
    )
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in files
        if path.name not in LOCAL and path.parent.name != "logs"
    }


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


@pytest.fixture
def own(finished_run: Path, tmp_path: Path) -> RunFolder:
    """A copy that one test may change."""
    return RunFolder(Path(shutil.copytree(finished_run, tmp_path / "own")))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of a real S3 server on this machine."""
    s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("runs")
    yield "s3://runs/mine"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["memory", "file", "folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address of every kind."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://runs/mine"
    return f"file://{tmp_path / 'store'}" if request.param == "file" else str(tmp_path / "store")


def test_a_run_comes_back_as_it_was_sent(finished_run: Path, url: str, tmp_path: Path) -> None:
    sent = push(RunFolder(finished_run), url)
    assert set(sent["state"]) == {"sent"}
    assert len(sent) == len(artefacts(RunFolder(finished_run)))
    again = push(RunFolder(finished_run), url)
    assert set(again["state"][again["artefact"] != "leaderboard.csv"]) == {"there already"}
    back = RunFolder(tmp_path / "back")
    assert set(pull(url, back)["state"]) == {"fetched"}
    assert files_of(back.root) == files_of(finished_run)
    assert verify(back).faults == ()
    again = pull(url, back)
    assert set(again["state"][again["artefact"] != "leaderboard.csv"]) == {"there already"}
    assert files_of(back.root) == files_of(finished_run)


def test_a_job_fetches_what_it_needs_trains_and_sends_its_part(own: RunFolder, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    key = PartKey("QI", "lexical-linear", 1)
    expected = own.parts.read(key, "oof")
    push(own, url, only=("rows", "folds"))
    job = tmp_path / "job"
    done = call("pull", url, job, "--only", "rows,folds", "--format", "json")
    assert {line["artefact"] for line in json.loads(done.stdout)} == {"rows/QI", "folds/QI/query-group.parquet"}
    words = ["--task", "QI", "--model", "lexical-linear", "--fold", 1]
    assert call("train", "--run", job, *words).exit_code == 0
    done = call("push", job, url, "--only", "parts/QI/lexical-linear")
    assert done.exit_code == 0, done.output
    shutil.rmtree(own.root / "parts")
    shutil.rmtree(own.root / "ensembles")
    done = call("pull", url, own.root)
    assert done.exit_code == 0, done.output
    assert own.parts.read(key, "oof").equals(expected)


def test_a_reader_of_the_store_sees_no_unfinished_artefact(
    own: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, sent = f"file://{tmp_path / 'store'}", []
    put = Store.put

    def put_some(store: Store, path: Path, name: str) -> None:
        if len(sent) == 9:
            raise KeyboardInterrupt
        sent.append(name)
        put(store, path, name)

    monkeypatch.setattr(Store, "put", put_some)
    with pytest.raises(KeyboardInterrupt):
        push(own, url)
    monkeypatch.undo()
    reader = RunFolder(tmp_path / "reader")
    fetched = pull(url, reader)
    assert 0 < len(fetched) < len(artefacts(own))
    assert verify(reader).faults == ()
    assert set(push(own, url)["state"]) == {"there already", "sent"}
    pull(url, reader)
    assert files_of(reader.root) == files_of(own.root)


def test_a_pull_that_was_killed_goes_on(own: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, got = f"file://{tmp_path / 'store'}", []
    push(own, url)
    get = Store.get

    def get_some(store: Store, name: str, path: Path) -> None:
        if len(got) == 14:
            raise KeyboardInterrupt
        got.append(name)
        get(store, name, path)

    monkeypatch.setattr(Store, "get", get_some)
    back = RunFolder(tmp_path / "back")
    with pytest.raises(KeyboardInterrupt):
        pull(url, back)
    monkeypatch.undo()
    assert verify(back).faults == ()
    assert "there already" in set(pull(url, back)["state"])
    assert files_of(back.root) == files_of(own.root)


def test_another_artefact_of_the_same_name_is_a_conflict_and_nothing_is_moved(own: RunFolder, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    key = PartKey("QI", "lexical", 1)
    push(own, url)
    manifest = own.parts.folder(key) / MANIFEST
    write_manifest(manifest, {**read_manifest(manifest), "fit_seconds": 0.5})
    shutil.rmtree(own.submission("final"))
    before = files_of(tmp_path / "store"), files_of(own.root)
    for move in (lambda: push(own, url), lambda: pull(url, own)):
        with pytest.raises(MismatchError) as caught:
            move()
        assert [fault.where for fault in caught.value.faults] == ["parts/QI/lexical/fold-1"]
    assert (files_of(tmp_path / "store"), files_of(own.root)) == before


def test_runs_with_other_settings_do_not_mix_but_recipes_do(own: RunFolder, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    push(own, url)
    settings = own.settings()
    own.write_settings(settings.model_copy(update={"recipes": ("e5-bi",)}))
    push(own, url)
    back = RunFolder(tmp_path / "back")
    pull(url, back, only=("rows",))
    assert back.settings().recipes == (*settings.recipes, "e5-bi")
    own.write_settings(settings.model_copy(update={"seed": 1}))
    with pytest.raises(MismatchError, match="other settings"):
        push(own, url)


def judged_by(run: RunFolder, metric: str) -> RunFolder:
    """The run, now one of a contest that is judged by another metric."""
    text = (CONTESTS / "cikm-2025.toml").read_text(encoding="utf-8")
    run.contest_file.write_text(text.replace('metric = "f1"', f'metric = "{metric}"'), encoding="utf-8")
    run.write_settings(run.settings().model_copy(update={"competition": "mine.toml"}))
    assert run.task("QI").metric == metric
    return run


@pytest.mark.parametrize("stored", ["f1", "accuracy"])
def test_runs_of_other_contests_do_not_mix(stored: str, own: RunFolder, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    push(own if stored == "f1" else judged_by(own, stored), url)
    other = judged_by(RunFolder(Path(shutil.copytree(own.root, tmp_path / "other"))), "macro_f1")
    before = files_of(tmp_path / "store"), files_of(other.root)
    for move in (lambda: push(other, url), lambda: pull(url, other)):
        with pytest.raises(MismatchError, match="different competitions"):
            move()
    assert (files_of(tmp_path / "store"), files_of(other.root)) == before
    back = RunFolder(tmp_path / "back")
    pull(url, back, only=("rows",))
    assert back.task("QI").metric == stored


def with_recipes(run: RunFolder, root: Path, *names: str) -> RunFolder:
    """A copy of the run whose settings name these recipes alone."""
    copy = RunFolder(Path(shutil.copytree(run.root, root)))
    copy.write_settings(copy.settings().model_copy(update={"recipes": names}))
    return copy


def test_of_two_jobs_that_push_at_once_both_keep_their_recipes(
    own: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, refuse, meanwhile = f"file://{tmp_path / 'store'}", remote._refuse_conflicts, list[Any]()
    first, second = (with_recipes(own, tmp_path / name, name) for name in ("e5-bi", "e5-ce"))

    def refuse_later(*words: Any) -> None:
        refuse(*words)
        if not meanwhile:
            meanwhile.append(0)
            push(second, url)

    monkeypatch.setattr(remote, "_refuse_conflicts", refuse_later)
    push(first, url)
    back = RunFolder(tmp_path / "back")
    pull(url, back, only=("rows",))
    assert set(back.settings().recipes) == {"e5-bi", "e5-ce"}


def test_settings_that_were_overwritten_while_files_were_sent_are_mended(
    own: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, put = f"file://{tmp_path / 'store'}", Store.put
    first, second = (with_recipes(own, tmp_path / name, name) for name in ("e5-bi", "e5-ce"))

    def put_later(store: Store, path: Path, name: str) -> None:
        store.write("run.toml", second.settings_file.read_bytes())
        put(store, path, name)

    monkeypatch.setattr(Store, "put", put_later)
    push(first, url)
    back = RunFolder(tmp_path / "back")
    pull(url, back, only=("rows",))
    assert set(back.settings().recipes) == {"e5-bi", "e5-ce"}


def test_a_pull_waits_for_who_writes_settings_and_keeps_them(own: RunFolder, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    push(own, url)
    back = with_recipes(own, tmp_path / "back", "e5-bi")
    with ThreadPoolExecutor() as pool:
        with alone(back.settings_file):
            pulling = pool.submit(pull, url, back, only=("rows",))
            with pytest.raises(TimeoutError):
                pulling.result(1)
            back.write_settings(back.settings().model_copy(update={"recipes": ("e5-bi", "e5-ce")}))
        pulling.result(60)
    assert back.settings().recipes == ("e5-bi", "e5-ce", *own.settings().recipes)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, ".".join("a" * 60) + " = 1", "seed = 1"])
def test_settings_of_a_stranger_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CompetitionError, match="the run in the store is not usable"):
        pull(str(tmp_path / "store"), RunFolder(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_a_damaged_file_in_the_store_is_named_and_does_not_count(own: RunFolder, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    push(own, url)
    victims = ("parts/QI/lexical/fold-0/oof.parquet", "folds/QI/query-group.parquet")
    for number, name in enumerate(victims):
        (tmp_path / "store" / name).write_bytes(b"damaged")
        back = RunFolder(tmp_path / f"back-{number}")
        with pytest.raises(CompetitionError, match="is damaged") as caught:
            pull(url, back, only=(str(Path(name).parent),))
        assert Path(name).name in str(caught.value)
        assert not (back.root / name).exists()
        assert not partial(back.root / name).exists()


@pytest.mark.parametrize(
    "name", ["../outside", "rows/../../outside", "/etc/x", "rows//x", "rows/./x", "a\\b", "c:x", "a\nb", "..", ""]
)
def test_names_that_lead_out_of_the_run_are_refused(name: str, tmp_path: Path) -> None:
    store = Store.open(f"file://{tmp_path / 'store'}")
    for use in (lambda: store.get(name, tmp_path / "x"), lambda: store.put(tmp_path, name), lambda: store.read(name)):
        with pytest.raises(CompetitionError, match="lead out of the run folder"):
            use()
    assert not list(tmp_path.iterdir())


def test_a_hostile_store_cannot_write_outside(own: RunFolder, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.store.clear()
    push(own, "memory://runs/mine", only=("rows",))
    files.pipe_file("/runs/mine/rows/../../../stolen/manifest.json", b"{}")
    with pytest.raises(CompetitionError, match="lead out of the run folder"):
        pull("memory://runs/mine", RunFolder(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_only_manifests_of_artefacts_count(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    known = ["rows/QC/manifest.json", "folds/QC/a.json", "leaderboard.json", "parts/QC/a/fold-0/manifest.json"]
    names = ["rows/QC", "folds/QC/a.parquet", "leaderboard.csv", "parts/QC/a/fold-0"]
    found = [artefact_of(run, name) for name in known]
    assert [each.name for each in found if each] == names
    assert [each.manifest_name for each in found if each] == known
    others = ["x/rows/QC/manifest.json", "manifest.json", "parts/QC/manifest.json", "folds/a.json", "run.toml"]
    others += ["ensembles/QC/.stack.old/manifest.json", "ensembles/QC/stack.partial/manifest.json", "rows/QC/a.parquet"]
    assert [artefact_of(run, name) for name in others] == [None] * len(others)


def test_what_cannot_be_moved_is_refused_with_advice(own: RunFolder, tmp_path: Path) -> None:
    for words, said in (
        (["push", own.root, "nosuch://x"], "cannot be opened"),
        (["pull", f"file://{tmp_path / 'nothing'}", tmp_path / "back"], "there is no run at"),
        (["push", own.root, f"file://{tmp_path / 'store'}", "--only", "parts/QC"], "nothing of that name"),
        (["push", tmp_path, f"file://{tmp_path / 'store'}"], "is not a run folder"),
    ):
        done = call(*words)
        assert (done.exit_code, said in done.stderr) == (3, True), done.output
    assert not os.path.lexists(tmp_path / "back")


def test_a_store_that_wants_credentials_says_how_to_give_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID") as caught:
        pull("s3://nobodys-bucket/run", RunFolder(tmp_path / "run"))
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run").exists()


def test_a_run_takes_its_own_recipes_along(own: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    shutil.copy(recipe_path("lexical"), mine)
    own.add_recipes([str(mine)], ["mine:head.rounds=7"])
    push(own, f"file://{tmp_path}/store")
    recipe = own.recipe("mine")
    mine.unlink()
    there = RunFolder(tmp_path / "there")
    pull(f"file://{tmp_path}/store", there)
    assert there.recipe("mine") == recipe
