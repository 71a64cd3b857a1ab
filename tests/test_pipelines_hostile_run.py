"""A run folder from a stranger: whatever is planted in it, none of its code runs; a command works or says why not.

The payloads are pickles that make a folder when they are read, and Python modules that do so when they are imported.
The modules can be imported here (worse than any machine should be), so what keeps them out is ours.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from competition.errors import CompetitionError
from competition.sample import write_sample
from oof.store import PartKey
from pipelines.backbones.checkpoints import seal
from pipelines.backbones.tensors_only import tensors_only
from pipelines.cli import main
from pipelines.launch import process_environment
from pipelines.prepare import prepare, split
from pipelines.run_folder import RunFolder, RunSettings
from pipelines.train import train

LEARNERS = ("e5-ce", "adapted", "e5-bi", "lexical", "lexical-linear")
PLANTED_MODULE = "planted_by_a_stranger"
BESIDE = (
    "pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth",
    "scaler.pt", "head.pkl", "model.joblib", "model.ckpt", "states.npy", "head.bin", "conftest.py", "sitecustomize.py",
)  # fmt: skip


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def adapted_recipe(path: Path, model: Path) -> Path:
    """A recipe file with adapters on every linear layer."""
    path.write_text(
        'kind = "cross_encoder"\npooling = "mean"\n'
        f'[weights]\nname = "{model}"\n[training]\nepochs = 1\nlearning_rate = 1e-3\n[training.lora]\nr = 2\n'
    )
    return path


@pytest.fixture(scope="module")
def received(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its own copy of a model and a recipe; the cross-encoder's last fold is unfinished."""
    import transformers

    root = tmp_path_factory.mktemp("received") / "run"
    write_sample(root / "data", n_train=90, n_dev=25, n_test=20, tasks=("QI",))
    run = RunFolder(root)
    prepare(run, RunSettings(data=str(root / "data"), tasks=("QI",), folds=3))
    split(run)
    shutil.copytree(bert, root / "model")
    adapted = adapted_recipe(root / "adapted.toml", root / "model")
    settings = ["training.epochs=2", "training.learning_rate=1e-3"]
    run.add_recipes(
        ["e5-ce", str(adapted), "e5-bi", "lexical", "lexical-linear"],
        [
            *(f"e5-ce:{one}" for one in settings),
            *(f"{name}:weights.name={root / 'model'}" for name in ("e5-ce", "e5-bi")),
            "e5-bi:head.epochs=1",
            "lexical:head.rounds=5",
        ],
    )
    for fold in range(3):
        for learner in LEARNERS:
            if (learner, fold) != ("e5-ce", 2):
                train(run, PartKey("QI", learner, fold))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.Trainer, "_save_checkpoint", saved_and_interrupted(transformers.Trainer))
        with pytest.raises(KeyboardInterrupt):
            train(run, PartKey("QI", "e5-ce", 2))
    assert list(root.rglob("checkpoint-*")), "a training to go on with"
    return root


def saved_and_interrupted(trainer: Any) -> Callable[..., None]:
    """What writes a trainer's checkpoint, and ends the training then."""
    save = trainer._save_checkpoint

    def write(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        raise KeyboardInterrupt

    return write


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A folder that is there as soon as a stranger's code has run."""
    return tmp_path / "it-ran"


@pytest.fixture
def run(received: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run where the stranger's settings say it is, so that they find its model; as received after the test.

    It is the working folder, and a module that runs at import is in it, on the path.
    """
    kept = tmp_path / "as-received"
    shutil.copytree(received, kept, symlinks=True)
    code = f"import os\nos.makedirs({str(marker)!r}, exist_ok=True)\n"
    (received / f"{PLANTED_MODULE}.py").write_text(code + "class Module: ...\nclass Config: ...\n")
    monkeypatch.syspath_prepend(received)
    monkeypatch.chdir(received)
    monkeypatch.setenv("RELSTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield received
    monkeypatch.undo()
    sys.modules.pop(PLANTED_MODULE, None)
    shutil.rmtree(received)
    shutil.copytree(kept, received, symlinks=True)


def invoke(run: Path, *words: str) -> int:
    """The exit code of a command; anything but a clean end or an error in our words fails the test."""
    clear_caches()
    done = CliRunner().invoke(main, ["--quiet", *words, "--run", str(run)])
    assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
    assert done.exit_code in (0, 1, 3), (words, done.output)
    return done.exit_code


def clear_caches() -> None:
    """Forget what this process has read of the run: a command is a process of its own."""
    from pipelines.backbones import bi_encoder, readers
    from pipelines.run_folder import read_rows_of_run

    bi_encoder.shared_embedder.cache_clear()
    bi_encoder.embed_corpus.cache_clear()
    readers._read_corpus.cache_clear()
    readers.reading_of.cache_clear()
    read_rows_of_run.cache_clear()


def predict(run: Path, *learners: str) -> list[int]:
    """Exit codes of predicting with these base learners."""
    data = run / "data" / "dev_QI.txt"
    return [invoke(run, "predict", str(data), "--task", "QI", "--model", learner) for learner in learners]


def go_on(run: Path) -> int:
    """Exit code of going on with the unfinished training."""
    return invoke(run, "train", "--task", "QI", "--model", "e5-ce", "--fold", "2")


def everything(run: Path) -> list[int]:
    """Exit codes of the commands that read a received run."""
    words = [("status",), ("leaderboard",), ("ensemble", "make", "--name", "mean"), ("submit", "--ensemble", "mean")]
    return [*predict(run, *LEARNERS[1:]), go_on(run), *(invoke(run, *each) for each in words)]


def dump(path: Path, marker: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Payload(marker)))


def edit(path: Path, **values: Any) -> None:
    """Put values into a JSON object, which is made where there is none."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **values}))


def test_the_payloads_would_work(run: Path, marker: Path) -> None:
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.is_dir()
    marker.rmdir()
    __import__(PLANTED_MODULE)
    assert marker.is_dir()


def test_the_run_as_received_works(run: Path, marker: Path) -> None:
    assert set(everything(run)) == {0}
    assert not marker.exists()


def test_pickles_and_modules_beside_every_file_are_left_alone(run: Path, marker: Path) -> None:
    code = (run / f"{PLANTED_MODULE}.py").read_text()
    folders = [path for path in run.rglob("*") if path.is_dir() and "data" not in path.parts]
    for folder in [run, *folders]:
        for name in BESIDE:
            if not (folder / name).exists():
                dump(folder / name, marker)
                if name.endswith(".py"):
                    (folder / name).write_text(code)
    assert set(everything(run)) <= {0, 3}
    assert predict(run, *LEARNERS[1:]) == [0, 0, 0, 0]
    assert not marker.exists()


def files_of(run: Path) -> dict[str, Sequence[Path]]:
    """What a command reads, by kind."""
    parts = run / "parts" / "QI"
    return {
        "weights": list(parts.glob("*/fold-*/weights/**/*")),
        "parts": [*parts.glob("*/fold-*/*.parquet"), *parts.glob("*/fold-*/manifest.json")],
        "rows": [*(run / "rows").rglob("*.parquet")],
        "folds": [*(run / "folds").rglob("*.*")],
        "checkpoints": list(parts.glob("*/fold-2.partial/**/*")),
        "model": list((run / "model").glob("*")),
        "settings": [run / "run.toml", run / "adapted.toml"],
    }


@pytest.mark.parametrize("kind", ["weights", "parts", "rows", "folds", "checkpoints", "model", "settings"])
def test_a_pickle_in_place_of_a_file_is_an_error(kind: str, run: Path, marker: Path) -> None:
    for path in files_of(run)[kind]:
        if path.is_file():
            dump(path, marker)
    found = everything(run)
    assert any(found) or kind == "checkpoints", "a checkpoint that is not whole is made again"
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt", "pytorch_model.bin"]
)
def test_a_pickle_in_a_checkpoint_is_refused_or_not_read(name: str, run: Path, marker: Path) -> None:
    for checkpoint in run.rglob("checkpoint-*"):
        dump(checkpoint / name, marker)
        if name == "pytorch_model.bin":
            (checkpoint / "model.safetensors").unlink()
        seal(checkpoint, {"pieces": 1})  # a stranger can do that too; an unsealed one is not read at all
    assert go_on(run) == (0 if name == "training_args.bin" else 3)  # which nobody reads
    assert not marker.exists()


@pytest.mark.parametrize("learner", ["e5-ce", "adapted"])
def test_weights_that_are_pickles_alone_are_refused(learner: str, run: Path, marker: Path) -> None:
    assert go_on(run) == 0
    for path in [*(run / "parts/QI" / learner).rglob("*model.safetensors")]:
        dump(path.with_name(path.name.replace("model", "pytorch_model").replace("safetensors", "bin")), marker)
        dump(path.with_name("adapter_model.bin"), marker)
        path.unlink()
    assert predict(run, learner) == [3]
    assert not marker.exists()


ADAPTERS: dict[str, dict[str, Any]] = {
    "a module to import": {"megatron_config": {"x": 1}, "megatron_core": PLANTED_MODULE},
    "a tokenizer with code": {
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "x",
        "num_virtual_tokens": 2,
        "tokenizer_name_or_path": "model",
        "tokenizer_kwargs": {"trust_remote_code": True},
    },
    "a library of its own": {"auto_mapping": {"base_model_class": "Module", "parent_library": PLANTED_MODULE}},
    "another base": {"base_model_name_or_path": "elsewhere"},
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_of_an_adapters_settings_only_ours_are_taken(what: str, run: Path, marker: Path) -> None:
    name_code(run / "model", "tokenizer_config.json")
    for path in (run / "parts/QI/adapted").rglob("adapter_config.json"):
        edit(path, **ADAPTERS[what])
    assert predict(run, "adapted")[0] in (0, 3)
    assert not marker.exists()


def name_code(folder: Path, file: str) -> None:
    """Let a model's settings name classes in a file of its own, and of the path."""
    own = f"{PLANTED_MODULE}.Module"
    classes = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForSequenceClassification"), own)
    edit(folder / file, auto_map={**classes, "AutoTokenizer": [own, own]}, trust_remote_code=True)
    edit(folder / file, **({"model_type": "own"} if file == "config.json" else {"tokenizer_class": "OwnTokenizer"}))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_model_names_does_not_run(file: str, run: Path, marker: Path) -> None:
    shutil.copy(run / f"{PLANTED_MODULE}.py", run / "model")
    name_code(run / "model", file)
    codes = [*predict(run, "e5-bi"), go_on(run)]
    assert codes == ([3, 3] if file == "config.json" else [0, 0]), "a known tokenizer does without its code"
    assert not marker.exists()


@pytest.mark.parametrize("place", ["model", "tokenizer"])
def test_code_that_a_parts_own_model_names_does_not_run(place: str, run: Path, marker: Path) -> None:
    assert go_on(run) == 0
    file = "config.json" if place == "model" else "tokenizer_config.json"
    for folder in (run / "parts/QI/e5-ce").glob(f"fold-*/weights/{place}"):
        shutil.copy(run / f"{PLANTED_MODULE}.py", folder)
        name_code(folder, file)
    assert predict(run, "e5-ce") == [3]
    assert not marker.exists()


def test_a_recipe_in_the_run_cannot_allow_code(run: Path, marker: Path) -> None:
    shutil.copy(run / f"{PLANTED_MODULE}.py", run / "model")
    name_code(run / "model", "config.json")
    text = (run / "run.toml").read_text()
    key = '"e5-bi:weights.trust_remote_code=true", "e5-ce:weights.trust_remote_code=true", '
    (run / "run.toml").write_text(text.replace("overrides = [", f"overrides = [{key}"))
    adapted = run / "adapted.toml"
    adapted.write_text(adapted.read_text().replace("[weights]", "[weights]\ntrust_remote_code = true"))
    for path in (run / "parts").rglob("details.json"):
        values = json.loads(path.read_text())
        if "weights" in values["recipe"]:
            values["recipe"]["weights"]["trust_remote_code"] = True
            path.write_text(json.dumps(values))
    assert predict(run, "e5-bi", "adapted") == [3, 3]
    assert go_on(run) == 3
    assert not marker.exists()


def plant_module(run: Path, marker: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{PLANTED_MODULE}.Module"}]
    (run / "model" / "modules.json").write_text(json.dumps(modules))


def plant_router(run: Path, marker: Path) -> None:
    kind = "sentence_transformers.base.modules.router.Router"
    (run / "model" / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    types = {"0": f"{PLANTED_MODULE}.Module"}
    (run / "model" / "router_config.json").write_text(json.dumps({"types": types, "structure": {}, "parameters": {}}))


def plant_loader_arguments(run: Path, marker: Path) -> None:
    kind = "sentence_transformers.models.Transformer"
    (run / "model" / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    unsafe = {"weights_only": False, "use_safetensors": False}
    (run / "model" / "sentence_bert_config.json").write_text(json.dumps({"model_args": unsafe}))
    dump(run / "model" / "pytorch_model.bin", marker)


def plant_dense(run: Path, marker: Path) -> None:
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Dense"]
    paths = ["", "1_Dense"]
    modules = [{"idx": i, "name": str(i), "path": paths[i], "type": kinds[i]} for i in range(2)]
    (run / "model" / "modules.json").write_text(json.dumps(modules))
    dump(run / "model" / "1_Dense" / "pytorch_model.bin", marker)
    settings = {"in_features": 16, "out_features": 2, "activation_function": f"{PLANTED_MODULE}.Module"}
    (run / "model" / "1_Dense" / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("plant", [plant_module, plant_router, plant_loader_arguments, plant_dense])
def test_modules_of_sentence_transformers_import_nothing(
    plant: Callable[[Path, Path], None], run: Path, marker: Path
) -> None:
    plant(run, marker)
    assert predict(run, "e5-bi") == [3]
    assert not marker.exists()


def test_a_study_that_is_a_pickle_is_an_error(run: Path, marker: Path) -> None:
    dump(run / "studies" / "QI" / "lexical" / "journal.log", marker)
    words = (
        "tune",
        "--task",
        "QI",
        "--model",
        "lexical",
        "--study",
        "lexical",
        "--trials",
        "1",
        "--vary",
        "head.leaves=4..9",
    )
    assert invoke(run, *words) in (0, 3)  # what looks like a line that a kill cut off is dropped
    assert not marker.exists()


def test_nothing_is_written_through_a_link_to_a_file_outside(run: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    profile.write_text("mine\n")
    (run / "timings.csv").unlink(missing_ok=True)
    (run / "timings.csv").symlink_to(profile)
    assert invoke(run, "leaderboard") == 3
    assert profile.read_text() == "mine\n"


def test_processes_that_are_started_import_nothing_from_the_working_folder(
    run: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (run / f"{PLANTED_MODULE}.py").read_text()
    for name in ("torch", "json", "argparse", "numpy", "sitecustomize"):
        (run / f"{name}.py").write_text(code)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    words = [sys.executable, "-m", "torch.distributed.run", "--help"]
    environment = process_environment(1, on_cpu=True)
    done = subprocess.run(words, env=environment, cwd=run, capture_output=True, text=True)
    assert "--nproc" in done.stdout, done.stderr
    assert not marker.exists()


def test_the_index_of_a_sharded_checkpoint_may_name_tensors_alone(tmp_path: Path, marker: Path) -> None:
    import torch
    from torch.distributed import checkpoint

    folder = tmp_path / "checkpoint-3"
    state = {"weight": torch.ones(3, 2), "half": torch.ones(2, dtype=torch.bfloat16), "step": 7, "names": ["a"]}
    checkpoint.save(state, checkpoint_id=folder / "optimizer_0")
    with tensors_only(str(folder)):
        checkpoint.load(state, checkpoint_id=folder / "optimizer_0")
    dump(folder / "optimizer_0" / ".metadata", marker)
    with pytest.raises(CompetitionError, match="more than tensors"), tensors_only(str(folder)):
        checkpoint.load(state, checkpoint_id=folder / "optimizer_0")
    assert not marker.exists()
