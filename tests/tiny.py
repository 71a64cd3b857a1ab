"""Tiny real models and tokenizers, made in memory and saved as the folders that a user would name; small rows."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.sample import write_sample
from competition.tasks import Task

VOCABULARY = 320  # 256 bytes, the special tokens, some merges
HIDDEN, LAYERS, ATTENTION_HEADS, LONGEST = 16, 2, 2, 192
TEXTS = ["red shoes", "blue running shoes", "pets,dogs,toys", "kitchen, dining & bar", "掃除機", "query: passage:"]


def make_tokenizer(kind: str) -> Any:
    """A byte-level BPE tokenizer with the special tokens and the pair layout of ``bert``, ``xlmr`` or ``gemma``.

    That of ``gemma`` has no padding token, as many decoders have none; "yes" and "no" are tokens of it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names, single, pair = {
        "bert": (
            {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
            "[CLS] $A [SEP]",
            "[CLS] $A [SEP] $B:1 [SEP]:1",
        ),
        "xlmr": (
            {
                "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>",
                "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>",
            },
            "<s> $A </s>",
            "<s> $A </s> </s> $B </s>",
        ),
        "gemma": (
            {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
            "<bos> $A",
            "<bos> $A <bos> $B",
        ),
    }[kind]  # fmt: skip
    special = list(dict.fromkeys(names.values()))
    tokenizer = Tokenizer(models.BPE(unk_token=names["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS + ["yes no"] * 9 if kind == "gemma" else TEXTS, trainer)
    places = [(name, tokenizer.token_to_id(name)) for name in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=places)
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if kind == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def save_tiny(folder: Path, kind: str, *, mask: bool = False) -> Path:
    """A folder with tokenizer (with a mask token if asked for) and tiny random weights.

    ``bert``: BertModel; ``xlmr``: XLMRobertaModel; ``deberta``: DebertaV2Model; ``gemma``: Gemma3ForCausalLM;
    ``gemma-multimodal``: Gemma3ForConditionalGeneration, the layout in which Gemma-3 4B and larger are published;
    ``gemma2``, ``qwen2``, ``qwen3``: their classes for language modelling.
    """
    import torch

    tokenizer = make_tokenizer(TOKENIZERS.get(kind, kind))
    if mask:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = _MODELS[kind](tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 4  # fresh weights are so small that every text would get nearly the same vector
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_translator(folder: Path, style: str) -> Path:
    """A folder with tiny random weights that translate: ``madlad`` (T5) or ``nllb`` (M2M100), language marks too.

    They know English, German, Spanish and Japanese.
    """
    import torch

    tokenizer = make_tokenizer("xlmr")
    marks = {"madlad": ["<2en>", "<2de>", "<2es>", "<2ja>"], "nllb": ["eng_Latn", "deu_Latn", "spa_Latn", "jpn_Jpan"]}
    tokenizer.add_tokens(marks[style], special_tokens=True)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = {"madlad": _t5, "nllb": _m2m100}[style](tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "relative" not in name:
                parameter *= 2 if style == "madlad" else 12  # else every text would get the same translation
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _t5(tokenizer: Any) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer), d_model=HIDDEN, d_kv=8, d_ff=2 * HIDDEN, num_layers=LAYERS,
            num_heads=ATTENTION_HEADS, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
            decoder_start_token_id=tokenizer.unk_token_id, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip


def _m2m100(tokenizer: Any) -> Any:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    return M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=len(tokenizer), d_model=HIDDEN, encoder_layers=LAYERS, decoder_layers=LAYERS,
            encoder_attention_heads=ATTENTION_HEADS, decoder_attention_heads=ATTENTION_HEADS,
            encoder_ffn_dim=2 * HIDDEN, decoder_ffn_dim=2 * HIDDEN, max_position_embeddings=LONGEST,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip


def _bert(tokenizer: Any) -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**_sizes(tokenizer), max_position_embeddings=LONGEST))


def _xlmr(tokenizer: Any) -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {**_sizes(tokenizer), **ids, "max_position_embeddings": LONGEST, "type_vocab_size": 1}
    return XLMRobertaModel(XLMRobertaConfig(**sizes))


def _gemma_text(tokenizer: Any) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        **_sizes(tokenizer),
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=LONGEST,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _gemma(tokenizer: Any) -> Any:
    from transformers import Gemma3ForCausalLM

    return Gemma3ForCausalLM(_gemma_text(tokenizer))


def _gemma_multimodal(tokenizer: Any) -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    config = Gemma3Config(text_config=_gemma_text(tokenizer), vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def _deberta(tokenizer: Any) -> Any:
    from transformers import DebertaV2Config, DebertaV2Model

    sizes = {
        **_sizes(tokenizer),
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 0,
        "pooler_hidden_size": HIDDEN,
    }
    positions = {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"]}
    return DebertaV2Model(
        DebertaV2Config(
            **sizes, **positions, norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False
        )
    )


def _gemma2(tokenizer: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**_decoder_sizes(tokenizer), head_dim=8, query_pre_attn_scalar=8))


def _qwen2(tokenizer: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_decoder_sizes(tokenizer), tie_word_embeddings=True))


def _qwen3(tokenizer: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_decoder_sizes(tokenizer), head_dim=8, tie_word_embeddings=False))


def _decoder_sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        **_sizes(tokenizer),
        "vocab_size": len(tokenizer) + 16,  # as published: room for tokens that a tokenizer class brings itself
        "num_key_value_heads": 1,
        "max_position_embeddings": LONGEST,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": ATTENTION_HEADS,
        "pad_token_id": tokenizer.pad_token_id,
    }


TOKENIZERS = {"deberta": "bert"} | dict.fromkeys(("gemma-multimodal", "gemma2", "qwen2", "qwen3"), "gemma")
_MODELS = {
    "bert": _bert,
    "xlmr": _xlmr,
    "deberta": _deberta,
    "gemma": _gemma,
    "gemma-multimodal": _gemma_multimodal,
    "gemma2": _gemma2,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}


WORDS = ["red", "blue", "shoes", "shirt", "running", "dog", "toy", "42", "wh-1000xm4", "zapatos", "靴", "掃除機"]
PATHS = [
    "pets", "pets,dogs", "pets,dogs,toys", "pets,cats", "home & garden,kitchen, dining & bar",
    "home & garden,kitchen, dining & bar,cookware", "home & garden,tools", "shoes",
]  # fmt: skip


def make_rows(n_rows: int, *, seed: int, targets: list[str] | None = None) -> pd.DataFrame:
    """Rows of random words, in four languages; label 1 where the target names "red", or the query "dog" (paths)."""
    rng = np.random.default_rng(seed)
    queries = [" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(n_rows)]
    titles = targets or [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(n_rows)]
    target = pd.Series([titles[i] for i in rng.integers(0, len(titles), n_rows)], dtype="str")
    query = pd.Series(queries, dtype="str")
    return pd.DataFrame(
        {
            "id": np.arange(n_rows),
            "language": pd.Series(rng.choice(["en", "es", "ja", "th"], n_rows), dtype="str"),
            "query": query,
            "query_en": query.where(pd.Series(rng.random(n_rows) < 0.5), ""),
            "target": target,
            "label": (query.str.contains("dog") if targets else target.str.contains("red")).astype("Int8"),
        }
    )


def odd_rows() -> pd.DataFrame:
    """Rows at the edges: empty texts, very long ones, a language and targets that no file has; no labels."""
    long = "wh-1000xm4 掃除機 " * 300
    texts = [("", ""), ("red", ""), ("", "red shoes"), (long, "shoes"), ("shoes", long), ("靴", "pets,dogs,new")]
    rows = pd.DataFrame(texts, columns=["query", "target"], dtype="str")
    rows.insert(0, "id", np.arange(len(rows)))
    rows.insert(1, "language", "xx")
    rows["query_en"] = ""
    return rows


def read_sample(folder: Path, task: Task, *, n_train: int, n_dev: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and dev rows (with labels) of a made-up competition, English translations included."""
    from competition.rows import read_competition

    write_sample(folder, n_train=n_train, n_dev=n_dev, n_test=1, tasks=(task.name,))
    english = pd.read_csv(folder / "translations.csv", dtype="str", keep_default_na=False)
    key = {"language": "language", "origin_query": "query", "translated_query": "query_en"}
    english = english.rename(columns=key).drop_duplicates(["language", "query"])
    frames = read_competition(folder, [task])[task.name]
    train, dev = (frames[split].merge(english, on=["language", "query"], how="left") for split in ("train", "dev"))
    train["target"], dev["target"] = train["target"].fillna(""), dev["target"].fillna("")  # as cleaned rows are
    assert train["query_en"].notna().all(), "every query of a sample has its translation"
    return train, dev


def one_by_one(backbone: Any, rows: pd.DataFrame, task: Task) -> np.ndarray:
    """The scores of rows that are scored one at a time."""
    return np.concatenate([backbone.predict(rows.iloc[[i]], task) for i in range(len(rows))])


def assert_probabilities(scores: np.ndarray, rows: pd.DataFrame) -> None:
    """One finite probability per row, float32."""
    assert scores.shape == (len(rows),)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """All weights of a fitted backbone that count: peft also keeps the random head that a trained one stands in for."""
    state = model.model.state_dict()
    return {name: tensor.float().numpy() for name, tensor in state.items() if "original_module" not in name}


def assert_equal_weights(one: Any, other: Any) -> None:
    """Two fitted backbones have the same weights, bit for bit."""
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


class Interrupt(logging.Handler):
    """Ctrl-C at the trainer's first report of the loss after `step`, for its logger."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def emit(self, record: logging.LogRecord) -> None:
        """Raise where the record is such a report."""
        if record.msg.startswith("step") and record.args[0] > self.step:  # type: ignore[index, operator]
            raise KeyboardInterrupt
