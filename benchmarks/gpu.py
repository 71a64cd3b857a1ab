"""What a GPU makes of our training and scoring: Gemma-3-12B with LoRA and XLM-R-large whole, in their real shapes.

    python benchmarks/gpu.py [--models gemma-3-12b xlm-roberta-large] [--rows 4096] [--steps 12] [--peak-tflops 989]

Weights are random, in shapes built here: nothing is downloaded. Training goes through `make_trainer`, scoring through
`score_inputs`. Rows have 43 tokens on average (`--row-tokens`; 29 is a QC row, 43 a QI row), log-normally spread, and
every optimiser step takes 32 of them. Four layouts of the same rows:

    naive           rows in random order, padded to the longest of the batch
    bucketed        `TrainingBatches`: rows of similar length in a batch, padded
    packed          the same batches, attention = "varlen": no padding
    packed-random   random batches without padding: every step has about the same number of tokens

Behind adapters a fifth is measured: five folds' adapters trained together on one base, a batch of each in one pass.

FLOP per token, N being the weights of linear layers and n those of adapters; attention, which is little at these
lengths, is left out. Full training 6 N; LoRA 4 N + 6 n; scoring 2 N + 2 n. "hardware" adds 2 N + 2 n for layers that
gradient checkpointing computes again; "model" does not. Both are shares of `--peak-tflops` and count real tokens only.
Rows per second are tokens per second over the mean length, so that it does not matter which batches were counted.
Waiting is the share of time in which the next batch is made; the GPU waits for at most that long.
"""

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

import pipelines.tokens
from pipelines.backbones.evaluation import Labelled
from pipelines.backbones.packing import VARLEN, laid_out, register_varlen, with_packed_head
from pipelines.backbones.pair_model import loading, with_fp32_head, with_lora
from pipelines.backbones.protocol import Corpus, Workspace
from pipelines.backbones.scoring import Logits, score_inputs
from pipelines.backbones.shared_base import add_adapters, in_equal_shares, trained_together
from pipelines.backbones.trainer import make_trainer
from pipelines.backbones.two_towers import N_LABELS
from pipelines.backbones.vocabulary import trimmed_vocabulary
from pipelines.config import load_recipe
from pipelines.sections import TrainingSection
from pipelines.tokens import CHUNK, Inputs, TokenRows, starts_of

MODELS = ("gemma-3-12b", "xlm-roberta-large")
GIB = 2**30
SPREAD = 0.4  # of the logarithm of a row's length: most rows of 43 tokens on average have 20 to 80
SHORTEST, LONGEST = 8, 96
N_FOLDS = 5
LAYOUTS = {"naive": ("sdpa", 1), "bucketed": ("sdpa", CHUNK), "packed": (VARLEN, CHUNK), "packed-random": (VARLEN, 1)}
COLUMNS = (
    "model", "job", "layout", "rows/s", "tokens/s", "places per token", "model FLOP", "hardware FLOP", "peak GiB",
    "waiting",
)  # fmt: skip
PEAK_TFLOPS = {"H200": 790.0, "H100": 989.0}  # dense bf16: measured, data sheet
GOALS = {  # on one H200
    "gemma-3-12b_train_packed_tokens_per_s": 6_500,
    "gemma-3-12b_score_packed_rows_per_s": 400,
    "xlm-roberta-large_train_packed_rows_per_s": 2_500,
    "xlm-roberta-large_score_packed_rows_per_s": 8_000,
}


def shape(model: str, *, tiny: bool) -> Any:
    """The configuration of a built-in recipe's network, in its published size or a tiny one."""
    from transformers import Gemma3TextConfig, XLMRobertaConfig

    if model == "gemma-3-12b":
        sizes = {"vocab_size": 262_208, "hidden_size": 3840, "intermediate_size": 15_360, "num_hidden_layers": 48}
        heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "query_pre_attn_scalar": 256}
        if tiny:
            sizes = {"vocab_size": 500, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
            heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8}
        return Gemma3TextConfig(**sizes, **heads, sliding_window=1024, pad_token_id=0, num_labels=N_LABELS)
    sizes = {"vocab_size": 250_002, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    if tiny:
        sizes = {"vocab_size": 500, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2 if tiny else 16, "max_position_embeddings": 514, "type_vocab_size": 1}
    return XLMRobertaConfig(**sizes, **heads, pad_token_id=1, layer_norm_eps=1e-5, num_labels=N_LABELS)


@dataclass(frozen=True)
class Network:
    """A random network with its recipe's training, and what one token costs.

    Attributes
    ----------
    classifier
        The network below the adapters, if it has any.
    n_linear, n_adapter
        Weights of linear layers that are the network's own, and those of its adapters.
    """

    name: str
    model: Any
    classifier: Any
    training: TrainingSection
    n_linear: int
    n_adapter: int

    @classmethod
    def build(cls, name: str, *, tiny: bool) -> "Network":
        """On the GPU if there is one."""
        import torch
        from transformers import AutoModelForSequenceClassification

        training: TrainingSection = load_recipe(name).training  # type: ignore[union-attr]
        training = training.model_copy(update={"epochs": 1.0})
        register_varlen()
        with torch.device(device()):
            classifier = AutoModelForSequenceClassification.from_config(
                shape(name, tiny=tiny), dtype=loading(training)["dtype"], attn_implementation="sdpa"
            )
        model = with_lora(with_packed_head(with_fp32_head(classifier)), training, task_type="SEQ_CLS").to(device())
        linear = [m for path, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lora_" not in path]
        adapters = [p.numel() for path, p in model.named_parameters() if "lora_" in path]
        return cls(name, model, classifier, training, sum(m.weight.numel() for m in linear), sum(adapters))

    def flop(self, job: str, *, recomputed: bool) -> float:
        """Floating point operations of one token; `recomputed` counts layers that checkpointing computes again."""
        forward = 2 * (self.n_linear + self.n_adapter)
        if job == "score":
            return forward
        model = 6 * self.n_adapter + (6 if self.training.lora is None else 4) * self.n_linear
        return model + forward * (recomputed and self.training.gradient_checkpointing)


@dataclass
class Clocked:
    """Inputs that count what is taken from them, see `pipelines.tokens.Inputs`."""

    inputs: Inputs
    seconds: float = 0.0
    n_tokens: int = 0
    n_places: int = 0
    began: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Forget what was counted."""
        settle()
        self.seconds, self.n_tokens, self.n_places = 0.0, 0, 0
        self.began = time.perf_counter()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> np.ndarray:
        """See `Inputs`."""
        return self.inputs.lengths

    @property
    def pad(self) -> int:
        """See `Inputs`."""
        return self.inputs.pad

    def take(self, rows: np.ndarray) -> "Clocked":
        """Not counted, see `Inputs`."""
        return replace(self, inputs=self.inputs.take(rows))

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Counted, see `Inputs`."""
        began = time.perf_counter()
        batch = self.inputs.batch(rows)
        self.seconds += time.perf_counter() - began
        self.n_tokens += int(self.lengths[rows].sum())
        self.n_places += batch["input_ids"].size
        return batch

    def token_ids(self) -> np.ndarray:
        """See `Inputs`."""
        return self.inputs.token_ids()

    def renumbered(self, table: np.ndarray) -> "Clocked":
        """See `Inputs`."""
        return replace(self, inputs=self.inputs.renumbered(table))


@dataclass(frozen=True)
class Measured:
    """What one job did per second on one layout."""

    job: str
    layout: str
    rows_per_s: float
    tokens_per_s: float
    padding: float
    waiting: float
    memory: float

    @classmethod
    def read(cls, job: str, layout: str, clock: Clocked) -> "Measured":
        """From a clock that was restarted when the job began, now that it has ended."""
        import torch

        settle()
        seconds = time.perf_counter() - clock.began
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return cls(
            job,
            layout,
            tokens_per_s=clock.n_tokens / seconds,
            rows_per_s=clock.n_tokens / seconds / float(clock.lengths.mean()),
            padding=clock.n_places / clock.n_tokens,
            waiting=clock.seconds / seconds,
            memory=memory / GIB,
        )


def draw_rows(n_rows: int, *, mean: float, vocabulary: int, pad: int) -> TokenRows:
    """Random rows with lengths as in product search."""
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, n_rows)
    lengths = np.clip(np.rint(drawn), SHORTEST, LONGEST).astype(np.int64)
    ids = rng.integers(5, vocabulary, int(lengths.sum()), dtype=np.int32)
    return TokenRows(ids, starts_of(lengths), pad=pad)


def logits_of(model: Any, batch: Mapping[str, Any]) -> Any:
    """What the head says."""
    return model(**batch)["logits"]


def measure_training(
    network: Network,
    layout: str,
    rows: TokenRows,
    *,
    n_warm: int,
    job: str = "train",
    logits: Logits = logits_of,
    batches_of: int = 1,
) -> Measured:
    """One epoch over the rows by our Trainer, of which the first steps are not counted."""
    from transformers import TrainerCallback

    training = network.training.model_copy(update={"batch_size": batches_of * network.training.batch_size})
    with laid_out_for(network, layout), tempfile.TemporaryDirectory() as folder:
        trims = trimmed_vocabulary(network.model, rows.token_ids(), pad=rows.pad)
        with trims if training.trim_vocabulary else nullcontext() as table:
            used = rows if table is None else rows.renumbered(table)
            clock = Clocked(laid_out(used, network.model))
            space = Workspace(Path(folder), Path(folder), Corpus((), pd.DataFrame()), 0, threads=1)
            labels = np.arange(len(rows)) % N_LABELS
            trainer = make_trainer(
                network.model.train(), Labelled(clock, labels), training=training, workspace=space, logits=logits
            )

            class Warm(TrainerCallback):  # type: ignore[misc]
                def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                    if state.global_step == n_warm:
                        clock.restart()
                    elif state.global_step == state.max_steps:
                        found.append(Measured.read(job, layout, clock))

            found: list[Measured] = []
            trainer.add_callback(Warm())
            trainer.args.save_strategy = "no"
            trainer.train()
            trainer.accelerator.unwrap_model(network.model, keep_fp32_wrapper=False)
            network.model._is_accelerate_prepared = False  # else the next Trainer would leave autocast out
    del trainer
    return found[0]


def measure_scoring(network: Network, layout: str, rows: TokenRows) -> Measured:
    """All rows scored once; naive are 32 rows at a time as they come."""
    half = network.training.half
    with laid_out_for(network, layout):
        clock = Clocked(laid_out(rows, network.model.eval()))
        size = network.training.batch_size if layout == "naive" else len(rows)
        parts = [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        score_inputs(network.model, clock.take(parts[0][:256]), logits=logits_of, half=half)
        clock.restart()
        taken = [clock.take(part) for part in parts]
        for part in taken:
            score_inputs(network.model, part, logits=logits_of, half=half)
        for part in taken:
            clock.seconds += part.seconds
            clock.n_tokens, clock.n_places = clock.n_tokens + part.n_tokens, clock.n_places + part.n_places
        return Measured.read("score", layout, clock)


def measure_folds(network: Network, rows: TokenRows, *, n_warm: int) -> Measured:
    """A batch of each of five folds in one pass, each through its own adapter."""
    first = next(iter(network.model.peft_config))
    names = [first, *(f"fold-{fold}" for fold in range(1, N_FOLDS))]
    add_adapters(network.model, names)
    with trained_together(network.model, names) as routes:
        return measure_training(
            network,
            "packed",
            rows,
            n_warm=n_warm,
            job=f"train {N_FOLDS} folds",
            logits=in_equal_shares(logits_of, routes),
            batches_of=N_FOLDS,
        )


@contextmanager
def laid_out_for(network: Network, layout: str) -> Iterator[None]:
    """Inside, the network's attention and the order of rows are the layout's; memory is counted from here."""
    import torch

    attention, chunk = LAYOUTS[layout]
    network.classifier.set_attn_implementation(attention)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with patch.object(pipelines.tokens, "CHUNK", chunk):
        yield


def device() -> str:
    """The GPU, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def settle() -> None:
    """Wait until the GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(network: Network, args: argparse.Namespace) -> Iterator[Measured]:
    """Every job on every layout."""
    config = network.classifier.config
    about = {"mean": args.row_tokens, "vocabulary": config.vocab_size, "pad": config.pad_token_id}
    size, n_steps = network.training.batch_size, args.warm + args.steps
    rows = draw_rows(size * n_steps, **about)
    for layout in LAYOUTS:
        yield measure_training(network, layout, rows, n_warm=args.warm)
    for layout in ("naive", "bucketed", "packed"):
        yield measure_scoring(network, layout, draw_rows(args.rows, **about))
    if network.n_adapter:
        yield measure_folds(network, draw_rows(N_FOLDS * size * n_steps, **about), n_warm=args.warm)


def line(network: Network, found: Measured, peak: float | None) -> str:
    """A line of the Markdown table."""
    shares = ["-", "-"]
    if peak is not None:
        costs = [network.flop(found.job, recomputed=recomputed) for recomputed in (False, True)]
        shares = [f"{found.tokens_per_s * cost / peak / 1e12:.1%}" for cost in costs]
    cells = [
        network.name,
        found.job,
        found.layout,
        f"{found.rows_per_s:,.0f}",
        f"{found.tokens_per_s:,.0f}",
        f"x{found.padding:.2f}",
        *shares,
        f"{found.memory:.1f}",
        f"{found.waiting:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def results(name: str, found: list[Measured]) -> dict[str, float]:
    """What is worth comparing later, by name."""
    values: dict[str, float] = {}
    for one in found:
        key = f"{name}_{one.job.replace(' ', '_')}_{one.layout}"
        values |= {f"{key}_rows_per_s": one.rows_per_s, f"{key}_tokens_per_s": one.tokens_per_s}
    together = f"{name}_train_{N_FOLDS}_folds_packed_rows_per_s"
    if together in values:
        values[f"{name}_folds_together_speedup"] = values[together] / values[f"{name}_train_packed_rows_per_s"]
    for job in ("train", "score"):
        naive, packed = (values[f"{name}_{job}_{layout}_rows_per_s"] for layout in ("naive", "packed"))
        values[f"{name}_{job}_packed_speedup"] = packed / naive
    return values


def main() -> None:
    import torch

    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # the Trainer would spread a batch over all GPUs that it sees
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rows", type=int, default=4096, help="rows to score")
    parser.add_argument("--steps", type=int, default=12, help="training steps that are counted")
    parser.add_argument("--warm", type=int, default=3, help="training steps before them")
    parser.add_argument("--row-tokens", type=float, default=43.0, help="mean tokens of a row")
    parser.add_argument("--peak-tflops", type=float, help="of this GPU, dense bf16; known for H100 and H200")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, which a CPU can do")
    args = parser.parse_args()
    if device() == "cpu" and not args.tiny:
        parser.error("there is no GPU; --tiny runs tiny shapes on the CPU")
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = args.peak_tflops or next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print(f"{name}, torch {torch.__version__}, {args.row_tokens:.0f} tokens a row, {args.steps} steps, peak {peak}")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    values: dict[str, float] = {}
    for model in args.models:
        torch.manual_seed(0)
        network = Network.build(model, tiny=args.tiny)
        print(f"{model}: {sum(p.numel() for p in network.model.parameters()):,} parameters", file=sys.stderr)
        found = []
        for one in measure(network, args):
            found.append(one)
            print(line(network, one, peak), flush=True)
        values |= results(model, found)
        del network
    for key, goal in GOALS.items():
        if key in values and not args.tiny:
            print(f"{key}: {values[key]:,.0f}, goal on an H200 {goal:,}")
    for key, value in values.items():
        print(f"RESULT {key} {value:.2f}")


if __name__ == "__main__":
    main()
