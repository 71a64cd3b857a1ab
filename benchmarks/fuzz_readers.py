"""The readers under test: for each the valid files of a small real run, and what reads them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm as lgb  # here, so that no child has to import it
import numpy as np
import optuna
import pandas as pd

from competition.artefacts import MANIFEST, SEAL, hashes, write_manifest
from competition.artefacts import read_manifest as read_sealed
from competition.errors import CompetitionError
from competition.fold_store import load_folds
from competition.inspection import inspect_competition
from competition.leaks import trail_of
from competition.rows import read_competition, read_rows
from competition.sample import write_sample
from competition.tasks import QI
from oof.crossfit import Fitted
from oof.features import level2_features
from oof.frame import PredictionFrame
from oof.logistic import LogisticStacker
from oof.stack import FittedLightGBM
from oof.store import PartKey
from pipelines.backbones import load
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.config import RECIPES, ExtraSection, load_recipe
from pipelines.distilling import Distillation, distil, student_decisions
from pipelines.embeddings import EmbeddingCache
from pipelines.ensembling import ensemble_cuts, gather, read_ensemble, read_manifest
from pipelines.extra_rows import with_extra_rows
from pipelines.launch import read_job, write_job
from pipelines.prepare import read_translations
from pipelines.pretraining import find_pretrained
from pipelines.pseudo import PseudoLabelling, find_pseudo, pseudo_label, pseudo_rows
from pipelines.run_folder import RunFolder, without_labels
from pipelines.search_space import read_space
from pipelines.study_store import StudyStore
from pipelines.timing import timing_table
from pipelines.translation.augment import translated_rows, with_folds
from pipelines.translation.cache import Block, TranslationCache
from pipelines.translation.glossary import read_glossaries
from pipelines.translation.recipe import RECIPES as TRANSLATION_RECIPES
from pipelines.translation.recipe import load_translation_recipe
from submissions.compare import read_predictions
from submissions.leaderboard import Leaderboard
from submissions.validate import validate_files

SIZES = {"n_train": 240, "n_dev": 40, "n_test": 40}
STUDY = {"space": ["head.c=0.1..1.0"], "rows": {"train": "0123"}, "n_rows": None, "seed": 1}
KEY = PartKey("QI", "lexical", 0)


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes
    ----------
    name
        What tables call it.
    make
        Writes valid files into a folder; it is given a finished run.
    files
        Patterns of the files to be damaged.
    read
        Reads the folder, in all the ways in which these files are read.
    seal
        Writes the digests of damaged files into their manifest, as somebody would who knows how it is done.
    """

    name: str
    make: Callable[[RunFolder, Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], object]
    seal: Callable[[Path], object] | None = None


def make_run(folder: Path) -> RunFolder:
    """A small finished run of QI: two lexical base learners, ensembles, a submission; translations too."""
    from click.testing import CliRunner

    from pipelines.cli import main

    data, run = folder / "data", folder / "run"
    write_sample(data, **SIZES, seed=3, tasks=("QI",))
    words = ["run", "--data", data, "--run", run, "--folds", 3, "--tasks", "QI", "--recipes", "lexical,lexical-linear",
             "--set", "lexical:head.rounds=5", "--translations", data / "translations.csv"]  # fmt: skip
    done = CliRunner().invoke(main, ["--quiet", *map(str, words)])
    assert done.exit_code == 0, done.output
    return RunFolder(run)


# What is written: valid files


def _rows(suffix: str) -> Callable[[RunFolder, Path], object]:
    def make(run: RunFolder, folder: Path) -> None:
        source = Path(run.settings().data) / "dev_QI.txt"
        records = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        records = [{**record, "label": place % 2} for place, record in enumerate(records)]
        path = folder / f"train_QI{suffix}"
        if suffix in (".jsonl", ".txt"):
            path.write_text(
                "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
            )
        elif suffix == ".parquet":
            pd.DataFrame(records).to_parquet(path, index=False)
        else:
            pd.DataFrame(records).to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")

    return make


def _copy(*names: str) -> Callable[[RunFolder, Path], object]:
    """Files and folders of the run, as they are."""

    def make(run: RunFolder, folder: Path) -> None:
        for name in names:
            source, target = run.root / name, folder / name
            if not source.exists():  # a run without translations
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)

    return make


def _with_run(*names: str) -> Callable[[RunFolder, Path], object]:
    return _copy("run.toml", "rows", "folds", "translations.parquet", *names)


def _make_text(*texts: str) -> Callable[[RunFolder, Path], object]:
    def make(run: RunFolder, folder: Path) -> None:
        for place, text in enumerate(texts):
            (folder / f"{place}.set").write_text(text, encoding="utf-8")

    return make


def _make_recipes(source: Path) -> Callable[[RunFolder, Path], object]:
    def make(run: RunFolder, folder: Path) -> None:
        for path in sorted(source.glob("*.toml"))[::3]:
            shutil.copy2(path, folder)

    return make


def _make_glossary(run: RunFolder, folder: Path) -> None:
    (folder / "glossary.tsv").write_text(
        "concept\ten\tes\tja\n1\tred shoes\tzapatos rojos\t赤い靴\n2\tpan\tsartén\t鍋\n", encoding="utf-8"
    )


def _make_translations(run: RunFolder, folder: Path) -> None:
    lines = (Path(run.settings().data) / "translations.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "translations.csv").write_text("".join(lines[:60]), encoding="utf-8")


def _make_pretrained(run: RunFolder, folder: Path) -> None:
    target = RunFolder(folder).pretrained("QI", "tapt") / "all"
    target.mkdir(parents=True)
    rows = run.rows("QI")["dev"]
    trail_of(rows, "QC").assign(step="tapt").to_parquet(target / "trail.parquet", index=False)
    values = {
        "task": "QI",
        "on": "QC",
        "recipe": {"kind": "cross_encoder"},
        "fold": None,
        "digest": "0123",
        "seconds": 1.5,
    }
    (target / "manifest.json").write_text(json.dumps(values), encoding="utf-8")


def _make_pseudo(run: RunFolder, folder: Path) -> None:
    pseudo_label(run, PseudoLabelling(task="QI", name="sure", ensemble="mean", soft=True))
    _with_run("pseudo")(run, folder)


def _make_student(run: RunFolder, folder: Path) -> None:
    distil(run, Distillation(task="QI", student="lexical", name="small"), overrides=("head.rounds=5",))
    _with_run("students")(run, folder)


def _make_augmented(run: RunFolder, folder: Path) -> None:
    _with_run()(run, folder)
    train = run.rows("QI")["train"]
    made = translated_rows(train, lambda pairs, target: "de " + pairs["text"], "de", rows=50, seed=0)
    path = RunFolder(folder).augmented("QI", "offline")
    path.parent.mkdir(parents=True)
    with_folds(made, train, run.folds("QI").align(train)).to_parquet(path, index=False)


def _make_study(run: RunFolder, folder: Path) -> None:
    store = StudyStore(folder / "study")
    store.agree_on(STUDY)
    study = store.open("maximize")
    for place in range(4):
        trial = study.ask({"c": optuna.distributions.FloatDistribution(0.1, 1.0)})
        trial.set_user_attr("worker", "w")
        trial.report(0.5, 1)
        study.tell(trial, 0.5 + place / 10)


def _make_trees(run: RunFolder, folder: Path) -> None:
    """Ensembles of the run, and one with trees that there are too few rows for."""
    _with_run("ensembles")(run, folder)
    frame = gather(run, "QI").frames["train"]
    languages = tuple(sorted(frame.rows["language"].unique()))
    features = level2_features(frame, languages=languages)
    names = tuple(features.columns.astype(str))
    data = lgb.Dataset(features.to_numpy(dtype=np.float32), frame.labels, categorical_feature=[names.index("language")])
    settings = {"num_leaves": 6, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "objective": "binary"}
    text = lgb.train(settings, data, 4).model_to_string()
    combiner = FittedLightGBM(LogisticStacker().fit(frame), languages, names, 4, text)
    stack = RunFolder(folder).ensemble("QI", "stack")
    Fitted(combiner, 0.5).to_folder(stack)
    write_manifest(stack / MANIFEST, {**read_sealed(stack / MANIFEST), "files": hashes(stack)})


def _make_embeddings(run: RunFolder, folder: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    EmbeddingCache(folder).write([f"text {i}" for i in range(20)], vectors)


def _make_kept(run: RunFolder, folder: Path) -> None:
    texts = tuple(f"zapatos {i}" for i in range(20))
    TranslationCache(folder).write(Block(("es",) * 20, texts), [f"shoes {i}" for i in range(20)])


def _make_job(run: RunFolder, folder: Path) -> None:
    recipe, rows = load_recipe("xlm-roberta-base"), run.rows("QI")
    space = Workspace(folder, folder, Corpus.of(rows.values()), seed=1, threads=1)
    write_job(folder / "job", recipe, QI, space, train=rows["train"], unseen={"dev": without_labels(rows["dev"])})  # type: ignore[arg-type]


def _make_submission(run: RunFolder, folder: Path) -> None:
    shutil.copytree(run.submission("final"), folder, dirs_exist_ok=True)


# How it is read


def _read_rows(suffix: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        with suppress(CompetitionError):
            read_rows(folder / f"train_QI{suffix}", QI, labelled=False)
        with suppress(CompetitionError):
            inspect_competition(folder, [QI])
        return read_rows(folder / f"train_QI{suffix}", QI, labelled=True), read_competition(folder, [QI])

    return read


def _read_text(folder: Path, read: Callable[[str], object]) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            read(path.read_bytes().decode("utf-8", "surrogateescape"))


def _read_run(folder: Path) -> object:
    run = RunFolder(folder)
    rows = run.rows("QI")
    run.folds("QI").dealt(rows["train"])
    return run.origin("QI", {}), [run.recipe(name) for name in run.settings().recipes]


def _read_folds(folder: Path) -> object:
    return [load_folds(path.parent, path.stem) for path in sorted(folder.rglob("*.json"))]


def _read_part(folder: Path) -> object:
    run = RunFolder(folder)
    run.parts.manifest(KEY)
    return gather(run, "QI", ["lexical"])


def _read_weights(folder: Path) -> object:
    for path in sorted(folder.glob("parts/QI/*/fold-0/weights")):
        space = Workspace(folder, folder, Corpus((), pd.DataFrame()), seed=0, threads=1)
        head: Any = load(path, space).head  # type: ignore[attr-defined]
        if hasattr(head, "num_feature"):
            head.predict(np.random.default_rng(0).normal(size=(5, head.num_feature())), num_threads=1)
    return None


@cache
def _frames() -> Mapping[str, PredictionFrame]:
    return gather(RunFolder(SOURCE[0]), "QI").frames


SOURCE: list[Path] = []
"""The finished run whose frames ensembles are tried on; set by `make_corpora`."""


def _read_ensembles(folder: Path) -> object:
    run, frames = RunFolder(folder), _frames()
    found: list[object] = []
    for name in ("blend", "stack"):
        found += [read_manifest(run.ensemble("QI", name)), ensemble_cuts(run, "QI", name)]
        found += [
            read_ensemble(run, "QI", name, "oof" if split == "train" else split, frame.rows["id"])
            for split, frame in frames.items()
        ]
        fitted = Fitted.from_folder(run.ensemble("QI", name))
        found += [fitted.decide(frames["dev"])]
    return found


def _read_pseudo(folder: Path) -> object:
    run = RunFolder(folder)
    return find_pseudo(run, "QI", "sure").digest, [pseudo_rows(run, "sure", PartKey("QI", "x", k)) for k in range(3)]


def _read_augmented(folder: Path) -> object:
    run = RunFolder(folder)
    train = run.folds("QI").with_groups(run.rows("QI")["train"])
    return with_extra_rows(run, train, ExtraSection(augmented="offline"), KEY)


def _read_pretrained(folder: Path) -> object:
    found = find_pretrained(RunFolder(folder), "tapt", task="QI", fold=0)
    return found.digest, found.trail


def _read_study(folder: Path) -> object:
    store = StudyStore(folder / "study")
    study = store.open("maximize")
    return store.n_counted(study), store.agree_on(STUDY)


def _read_submission(folder: Path) -> object:
    rows = {"QI": RunFolder(SOURCE[0]).rows("QI")["test"]}
    for path in sorted(folder.iterdir()):
        for read in (lambda path: validate_files(path, rows, [QI]), lambda path: read_predictions(path, QI)):
            with suppress(CompetitionError):
                read(path)
    return validate_files(folder, rows, [QI]), read_predictions(folder, QI)


def _read_kept(folder: Path) -> object:
    return TranslationCache(folder).read()


# Digests anew


def _seal_files(folder: Path) -> None:
    for path in folder.rglob("manifest.json"):
        values = json.loads(path.read_bytes())
        for name in values["files"]:
            if (path.parent / name).is_file():  # not a pipe, nor an endless device
                values["files"][name] = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        values.pop(SEAL, None)
        write_manifest(path, values)


READERS = (
    *(
        Reader(f"rows{suffix}", _rows(suffix), ("*",), _read_rows(suffix))
        for suffix in (".jsonl", ".csv", ".tsv", ".parquet")
    ),
    Reader("translations", _make_translations, ("*",), lambda folder: read_translations(folder / "translations.csv")),
    Reader("glossary", _make_glossary, ("*",), lambda folder: read_glossaries([folder / "glossary.tsv"])),
    Reader("kept-translations", _make_kept, ("*.parquet",), _read_kept),
    Reader("folds", _copy("folds"), ("folds/QI/*",), _read_folds),
    Reader("run", _with_run(), ("run.toml", "*.parquet", "rows/QI/*", "folds/QI/*"), _read_run),
    Reader("recipes", _make_recipes(RECIPES), ("*",), lambda folder: [load_recipe(str(p)) for p in folder.iterdir()]),
    Reader(
        "translation-recipes",
        _make_recipes(TRANSLATION_RECIPES),
        ("*",),
        lambda folder: [load_translation_recipe(str(path)) for path in folder.iterdir()],
    ),
    Reader(
        "overrides",
        _make_text("head.c=0.5", "lexical:ngrams.longest=5", 'text.view="both"', "head={kind='linear', c=2.0}"),
        ("*",),
        lambda folder: _read_text(folder, lambda text: load_recipe("lexical", [text])),
    ),
    Reader(
        "space",
        _make_text(
            "head.c=log:1e-5..1e-4", "head.kind=linear,lightgbm", "ngrams.longest=3..6", 'text.view="both", "english"'
        ),
        ("*",),
        lambda folder: _read_text(folder, lambda text: read_space([text], "lexical")),
    ),
    Reader(
        "parts",
        _with_run("parts"),
        ("parts/QI/lexical/fold-[01]/*.parquet", "parts/QI/lexical/fold-[01]/manifest.json"),
        _read_part,
        _seal_files,
    ),
    Reader("weights", _copy("parts"), ("parts/QI/*/fold-0/weights/*",), _read_weights),
    Reader("ensembles", _make_trees, ("ensembles/QI/*/*.*", "ensembles/QI/*/*/*.*"), _read_ensembles, _seal_files),
    Reader("pretrained", _make_pretrained, ("pretrained/QI/tapt/all/*",), _read_pretrained),
    Reader("pseudo", _make_pseudo, ("pseudo/QI/sure/*",), _read_pseudo, _seal_files),
    Reader(
        "students",
        _make_student,
        ("students/QI/small/*.*",),
        lambda folder: [student_decisions(RunFolder(folder), "QI", "small", split) for split in ("dev", "test")],
    ),
    Reader("augmented", _make_augmented, ("augmented/QI/*",), _read_augmented),
    Reader("study", _make_study, ("study/study.json", "study/journal.log"), _read_study),
    Reader("submission", _make_submission, ("*",), _read_submission, _seal_files),
    Reader(
        "leaderboard", _copy("leaderboard.csv"), ("*",), lambda folder: Leaderboard.read_csv(folder / "leaderboard.csv")
    ),
    Reader("timings", _copy("timings.csv"), ("*",), lambda folder: timing_table(RunFolder(folder))),
    Reader(
        "embeddings",
        _make_embeddings,
        ("*.npz",),
        lambda folder: EmbeddingCache(folder).read([f"text {i}" for i in range(20)]),
    ),
    Reader("job", _make_job, ("job/job.json",), lambda folder: read_job(folder / "job")),
)


def make_corpora(run: RunFolder, folder: Path) -> dict[str, Path]:
    """A folder of valid files for every reader, each read once without an error; `run` is a finished one of QI."""
    SOURCE[:] = [run.root]
    _frames.cache_clear()
    corpora = {}
    for reader in READERS:
        corpora[reader.name] = folder / reader.name
        corpora[reader.name].mkdir(parents=True)
        reader.make(run, corpora[reader.name])
        reader.read(corpora[reader.name])
    return corpora
