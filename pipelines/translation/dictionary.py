"""The translator that needs no network: longest match over a glossary, then words, then parts of words."""

import io
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from competition.cleaning import normalise_query
from competition.languages import WITHOUT_SPACES, iso_code
from pipelines.translation.alignment import learn_words
from pipelines.translation.glossary import read_glossaries
from pipelines.translation.pass_through import is_code
from pipelines.translation.protocol import NoFileError
from pipelines.translation.recipe import DictionaryRecipe
from pipelines.translation.table import digest_files

LAYOUT = "1"  # our version of how texts are translated: another one is another cache
N_PIECES = 8000
START = "▁"  # sentencepiece's mark of a word's beginning
SHORTEST_ENTRY = 2  # words: single ones are translated by what was learned of them
SHORTEST_RUN = 4  # characters of an entry found inside a text without spaces; shorter ones are found by accident
SHORTEST_PIECE = 3  # letters of a part of a word that is worth translating

Segment = Callable[[str], list[str]]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What a glossary says of one language in another.

    Attributes
    ----------
    entries
        Whole phrases and their translations.
    words, pieces
        Learned translations of single words, and of the pieces that `segment` cuts words into.
    spaced, target_spaced
        Whether there are spaces between the words of the two languages.
    """

    entries: Mapping[str, str]
    words: Mapping[str, str]
    pieces: Mapping[str, str]
    segment: Segment
    spaced: bool
    target_spaced: bool

    def translate(self, text: str, *, whole: bool) -> tuple[str, float]:
        """The translation of a normalised text, and the share of its letters that something was known for."""
        if whole and text in self.entries:
            return self.entries[text], 1.0
        found: list[str] = []
        known = total = 0
        for run, translation in self._runs(text, whole=whole):
            parts = [(run, translation)] if translation is not None else self._words(run)
            for part, meaning in parts:
                total += len(part)
                known += len(part) if meaning is not None else 0
                found += (part if meaning is None else meaning).split()
        separator = " " if self.target_spaced else ""
        return separator.join(dict.fromkeys(found)), known / total if total else 0.0

    def _runs(self, text: str, *, whole: bool) -> Iterator[tuple[str, str | None]]:
        """The text cut into the longest entries from left to right, and what lies between them (None)."""
        units = text.split() if self.spaced else list(text)
        separator, shortest = (" ", SHORTEST_ENTRY) if self.spaced else ("", SHORTEST_RUN)
        longest = len(units) - (0 if whole else 1)
        start = at = 0
        while at < len(units):
            ends = range(min(len(units), at + longest), at + shortest - 1, -1)
            end = next((end for end in ends if separator.join(units[at:end]) in self.entries), None)
            if end is None:
                at += 1
                continue
            if start < at:
                yield separator.join(units[start:at]), None
            entry = separator.join(units[at:end])
            yield entry, self.entries[entry]
            start = at = end
        if start < len(units):
            yield separator.join(units[start:]), None

    def _words(self, run: str) -> Iterator[tuple[str, str | None]]:
        """Each word with its translation; a word that was not learned in pieces; None for what nothing is known of."""
        for word in run.split():
            if is_code(word):
                yield word, word
            elif self.spaced and word in self.words:
                yield word, self.words[word]
            else:
                yield from self._pieces(word)

    def _pieces(self, word: str) -> Iterator[tuple[str, str | None]]:
        pieces = self.segment(word)
        meanings = [(piece.replace(START, ""), self.pieces.get(piece)) for piece in pieces]
        shortest = SHORTEST_PIECE if self.spaced else 1
        real = [(piece, meaning) for piece, meaning in meanings if meaning and len(piece) >= shortest]
        if not real:
            yield word, "" if not self.spaced and all(meaning == "" for _, meaning in meanings) else None
            return
        yield from real
        rest = len(word) - sum(len(piece) for piece, _ in real)
        if rest > 0:
            yield "", None


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Glossary files as a translator, in every direction between their languages."""

    recipe: DictionaryRecipe
    digest: str
    columns: Mapping[str, Sequence[str]] = field(repr=False)
    _lexicons: dict[tuple[str, str], Lexicon] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, recipe: DictionaryRecipe, files: Sequence[Path]) -> "Dictionary":
        """The dictionary of some glossary files.

        Raises
        ------
        CompetitionError
            `NoFileError`, or one is faulty.
        """
        if not files:
            raise NoFileError("a dictionary needs a glossary", advice="name it: --glossary FILE.tsv")
        columns = read_glossaries(files)
        return cls(recipe, digest_files(files), columns)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Translator`."""
        settings = {"words": self.recipe.words, "whole": self.recipe.whole, "min_known": self.recipe.min_known}
        versions = {"layout": LAYOUT, "sentencepiece": version("sentencepiece")}
        return {"kind": "dictionary", "files": self.digest, **settings, **versions}

    def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[str]:
        """See `Translator`."""
        key = iso_code(source), iso_code(target)
        if not set(key) <= self.columns.keys() or key[0] == key[1]:
            return [""] * len(texts)
        if key not in self._lexicons:
            self._lexicons[key] = make_lexicon(self.columns[key[0]], self.columns[key[1]], *key, self.recipe.words)
        return [self._one(self._lexicons[key], text) for text in texts]

    def _one(self, lexicon: Lexicon, text: str) -> str:
        translation, known = lexicon.translate(normalise_query(text), whole=self.recipe.whole)
        return translation if known > 0 and known >= self.recipe.min_known else ""


def make_lexicon(sources: Sequence[str], targets: Sequence[str], source: str, target: str, words: bool) -> Lexicon:
    """The lexicon of two columns of a glossary; `source` and `target` are ISO codes."""
    pairs = [(normalise_query(one), _tidy(other)) for one, other in zip(sources, targets, strict=True) if one and other]
    entries: dict[str, str] = {}
    for phrase, translation in pairs:
        entries.setdefault(phrase, translation)
    spaced, target_spaced = source not in WITHOUT_SPACES, target not in WITHOUT_SPACES
    if not words or not pairs:
        single = {phrase: translation for phrase, translation in entries.items() if " " not in phrase}
        return Lexicon(entries, single, {}, str.split, spaced, target_spaced)
    segment = make_segment([phrase for phrase, _ in pairs])
    answers = target_units([translation for _, translation in pairs], spaced=target_spaced)
    learned = learn_words([(_words(phrase), answer) for (phrase, _), answer in zip(pairs, answers, strict=True)])
    cut = [(segment(phrase), answer) for (phrase, _), answer in zip(pairs, answers, strict=True)]
    return Lexicon(entries, learned, learn_words(cut), segment, spaced, target_spaced)


def target_units(texts: Sequence[str], *, spaced: bool) -> list[list[str]]:
    """The words of every text, or its pieces where there are no spaces."""
    if spaced:
        return [_words(text) for text in texts]
    segment = make_segment(texts)
    return [[unit for piece in segment(text) if (unit := piece.replace(START, ""))] for text in texts]


def make_segment(texts: Sequence[str]) -> Segment:
    """A function that cuts words into pieces that often recur in `texts` (unigram model of sentencepiece, Kudo 2018).

    The same texts give the same pieces.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=N_PIECES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return lambda text: [piece for piece in processor.encode(text, out_type=str) if piece != START]


def _words(phrase: str) -> list[str]:
    for mark in ",/&":
        phrase = phrase.replace(mark, " ")
    return phrase.split()


def _tidy(text: str) -> str:
    """Lower case and single spaces; unlike a normalised text it keeps letters such as ß."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
