"""MADLAD-400 and NLLB through transformers: greedy, batches by length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from competition.languages import iso_code
from pipelines.translation.recipe import NetworkRecipe, Seq2SeqRecipe
from pipelines.trust import read_tokenizer
from pipelines.weights import Weights, load_checked, named_weights

# fmt: off
FLORES = {
    "ar": "arb_Arab", "bg": "bul_Cyrl", "cs": "ces_Latn", "da": "dan_Latn", "de": "deu_Latn", "el": "ell_Grek",
    "en": "eng_Latn", "es": "spa_Latn", "fa": "pes_Arab", "fi": "fin_Latn", "fr": "fra_Latn", "he": "heb_Hebr",
    "hi": "hin_Deva", "hu": "hun_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang",
    "ms": "zsm_Latn", "nl": "nld_Latn", "no": "nob_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn",
    "ru": "rus_Cyrl", "sv": "swe_Latn", "th": "tha_Thai", "tr": "tur_Latn", "uk": "ukr_Cyrl", "vi": "vie_Latn",
    "zh": "zho_Hans",
}
# fmt: on
"""ISO code -> the language's token in NLLB (codes of FLORES-200)."""


@dataclass(frozen=True, eq=False)
class Languages:
    """How a translation network is told the languages: the token ids that it reads, and its first token."""

    tokenizer: Any
    style: str
    max_length: int

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Token -> its id."""
        known: Mapping[str, int] = self.tokenizer.get_vocab()
        return known

    def knows(self, source: str, target: str) -> bool:
        """Whether the network has the tokens that name the languages."""
        return all(name in self.vocabulary for name in self._names(source, target))

    def inputs(self, texts: Sequence[str], *, source: str, target: str) -> list[list[int]]:
        """Token ids of every text, languages and end included."""
        mark = f"<2{iso_code(target)}> " if self.style == "madlad" else ""
        encoded = self.tokenizer(
            [mark + text for text in texts],
            add_special_tokens=False,
            truncation=True,
            max_length=self.max_length - 2,
        )
        before = [self.vocabulary[FLORES[iso_code(source)]]] if self.style == "nllb" else []
        return [[*before, *ids, self.tokenizer.eos_token_id] for ids in encoded["input_ids"]]

    def first_token(self, target: str) -> int | None:
        """The token that the answer begins with, None where the network is free to choose."""
        return self.vocabulary[FLORES[iso_code(target)]] if self.style == "nllb" else None

    def words(self, ids: Sequence[int]) -> str:
        """The text of an answer."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _names(self, source: str, target: str) -> list[str]:
        if self.style == "madlad":
            return [f"<2{iso_code(target)}>"]
        return [FLORES.get(iso_code(language), "") for language in (source, target)]


@dataclass(frozen=True)
class Seq2Seq:
    """A translation network on one device."""

    recipe: Seq2SeqRecipe
    weights: Weights
    device: str
    threads: int

    @classmethod
    def load(cls, recipe: Seq2SeqRecipe, *, device: str, threads: int) -> "Seq2Seq":
        """The translator of the recipe's weights; they are loaded with the first text.

        Raises
        ------
        CompetitionError
            The weights are nowhere.
        """
        return cls(recipe, find_weights(recipe), device, threads)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        return {**network_identity(self.recipe, self.weights), "precision": self._precision}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        import torch

        from pipelines.tokens import TokenRows, batches_by_length

        if not texts or not self.languages.knows(source, target):
            return [""] * len(texts)
        torch.set_num_threads(self.threads)
        rows = TokenRows.of(self.languages.inputs(texts, source=source, target=target), pad=self._pad)
        first = self.languages.first_token(target)
        answers = [""] * len(texts)
        with torch.inference_mode():
            for batch in batches_by_length(rows.lengths, tokens_per_batch=self.recipe.tokens_per_batch):
                inputs = {name: torch.from_numpy(ids).to(self._device) for name, ids in rows.batch(batch).items()}
                made = self.model.generate(
                    **inputs,
                    num_beams=1,
                    do_sample=False,
                    max_new_tokens=self.recipe.max_new_tokens,
                    forced_bos_token_id=first,
                )
                for place, ids in zip(batch.tolist(), made.cpu().tolist(), strict=True):
                    answers[place] = self.languages.words(ids)
        return answers

    @cached_property
    def languages(self) -> Languages:
        """How the network is told the languages."""
        return load_languages(self.recipe, self.weights)

    @cached_property
    def model(self) -> Any:
        """The network on its device."""
        import torch
        from transformers import AutoModelForSeq2SeqLM

        dtype = torch.bfloat16 if self._precision == "bf16" else torch.float32
        model = load_checked(AutoModelForSeq2SeqLM, self.weights, head_prefixes=(), dtype=dtype)
        return model.to(self._device).eval()

    @property
    def _pad(self) -> int:
        return int(self.languages.tokenizer.pad_token_id)

    @property
    def _device(self) -> str:
        return usable_device(self.device)

    @property
    def _precision(self) -> str:
        if self.recipe.precision != "auto":
            return self.recipe.precision
        return "bf16" if self._device != "cpu" else "fp32"


def find_weights(recipe: NetworkRecipe) -> Weights:
    """The recipe's weights on this disk."""
    return named_weights(recipe.weights)


def network_identity(recipe: NetworkRecipe, weights: Weights) -> dict[str, Any]:
    """What determines the translations of a network, but for how it computes."""
    lengths = {"max_length": recipe.max_length, "max_new_tokens": recipe.max_new_tokens}
    return {"kind": type(recipe).__name__, "weights": weights.digest, "style": recipe.style, **lengths}


def load_languages(recipe: NetworkRecipe, weights: Weights) -> Languages:
    """`Languages` with the tokenizer of some weights."""
    tokenizer = read_tokenizer(weights.folder, trusted=weights.trusted)
    return Languages(tokenizer, recipe.style, recipe.max_length)


def usable_device(asked: str) -> str:
    """The device asked for; ``auto`` is ``cuda`` where there is one, else ``cpu``."""
    import torch

    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"
