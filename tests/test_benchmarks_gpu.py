"""The GPU benchmark: its real shapes, its formulas, and a run of tiny shapes on the CPU."""

import math
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config import load_recipe

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "billions", "linear"), [("gemma-3-12b", 11.766, 10.758), ("xlm-roberta-large", 0.560, 0.303)]
)
def test_the_shapes_are_the_published_ones(model: str, billions: float, linear: float, gpu: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(gpu.shape(model, tiny=False))
    weights = [module.weight.numel() for module in network.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(p.numel() for p in network.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)
    assert sum(weights) / 1e9 == pytest.approx(linear, abs=5e-4)


def test_a_token_costs_what_the_formulas_say(gpu: Any) -> None:
    training = load_recipe("gemma-3-12b").training  # type: ignore[union-attr]
    network = gpu.Network("", None, None, training, n_linear=1000, n_adapter=10)
    assert network.flop("train", recomputed=False) == 4 * 1000 + 6 * 10
    assert network.flop("train 5 folds", recomputed=True) == 6 * 1000 + 8 * 10
    assert network.flop("score", recomputed=True) == 2 * 1000 + 2 * 10
    whole = gpu.Network("", None, None, load_recipe("xlm-roberta-large").training, n_linear=1000, n_adapter=0)  # type: ignore[union-attr]
    assert whole.flop("train", recomputed=True) == 6 * 1000


def test_rows_have_the_lengths_asked_for(gpu: Any) -> None:
    lengths = gpu.draw_rows(20_000, mean=43.0, vocabulary=500, pad=0).lengths
    assert lengths.mean() == pytest.approx(43, rel=0.02)
    assert lengths.min() >= gpu.SHORTEST
    assert lengths.max() == gpu.LONGEST


def test_tiny_shapes_run_through_every_layout() -> None:
    options = ["--tiny", "--rows", "48", "--steps", "1", "--warm", "1", "--peak-tflops", "0.01"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, *options], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    jobs = [(model, job, layout) for model, job, layout, *_ in cells]
    trained = ["naive", "bucketed", "packed", "packed-random"]
    for model in ("gemma-3-12b", "xlm-roberta-large"):
        for job, layouts in {"train": trained, "score": trained[:3]}.items():
            assert [one[2] for one in jobs if one[:2] == (model, job)] == layouts
    assert ("gemma-3-12b", "train 5 folds", "packed") in jobs
    places = {(model, job, layout): float(row[2].strip("x")) for model, job, layout, *row in cells}
    assert all(value == 1 for (_, _, layout), value in places.items() if "packed" in layout)
    assert all(places[model, job, "naive"] > 1.2 for model, job, layout in jobs if layout == "naive")
    results = [line.split() for line in lines if line.startswith("RESULT ")]
    assert lines[-len(results) :] == [" ".join(result) for result in results]
    values = {name: float(value) for _, name, value in results}
    assert all(math.isfinite(value) and value > 0 for value in values.values())
    assert {"gemma-3-12b_folds_together_speedup", "xlm-roberta-large_train_packed_speedup"} <= values.keys()
