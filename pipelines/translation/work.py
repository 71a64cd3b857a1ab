"""The work of translating many texts: each distinct one once, resumable, shared by processes and devices."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from competition.errors import CompetitionError
from pipelines.config import digest_values, learner_name
from pipelines.output import narrate
from pipelines.progress import available_threads
from pipelines.translation.build import build_translator
from pipelines.translation.cache import Block, TranslationCache, cut_blocks
from pipelines.translation.pass_through import passes_through
from pipelines.translation.protocol import Resources, Translator
from pipelines.weights import cache_dir

log = logging.getLogger(__name__)

TELL_SECONDS = 5.0


@dataclass(frozen=True)
class Translating:
    """What to translate with, and how the work is cut and shared out.

    Attributes
    ----------
    recipe, overrides
        Name of the translation recipe, and ``[recipe:]key=value``.
    target
        The language to translate to.
    block
        Texts between two writes of the cache.
    workers
        Processes on this machine; with several GPUs each worker has its own. The same call in other processes, or on
        other machines that see the same cache, shares the work too.
    root
        Where the caches of all recipes are.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    target: str = "en"
    block: int = 500
    workers: int = 1
    root: Path = field(default_factory=lambda: cache_dir() / "translations")

    def translator(self) -> Translator:
        """The recipe's translator."""
        return build_translator(self.recipe, self.resources, overrides=self.overrides)

    def cache(self, translator: Translator) -> TranslationCache:
        """Where the translations of this translator are kept: another file, weights or setting is another folder."""
        digest = digest_values(dict(translator.identity))
        return TranslationCache(self.root / f"{learner_name(self.recipe)}-{digest}" / self.target)


def translate_pairs(pairs: pd.DataFrame, work: Translating, *, translator: Translator | None = None) -> pd.Series:
    """The translation of every row, ``(n_rows,)`` text with the index of `pairs`; "" where there is none.

    Texts that need no translation stay as they are; every other distinct (language, text) is translated once and never
    again. A kill costs the blocks that were being translated; the same call goes on with the rest.

    Parameters
    ----------
    pairs
        With ``language`` and ``text``.
    translator
        That of the recipe, if it is in memory already.

    Raises
    ------
    CompetitionError
        The recipe cannot be used, or a worker stopped.
    """
    translator = translator or work.translator()
    cache = work.cache(translator)
    own = np.fromiter(
        (
            passes_through(text, source=language, target=work.target)
            for language, text in zip(pairs["language"], pairs["text"], strict=True)
        ),
        dtype=bool,
        count=len(pairs),
    )
    rest = pairs.loc[~own, ["language", "text"]]
    blocks = cut_blocks(_unknown(rest, cache.read()), work.block)
    if blocks:
        log.info("translate with %s: %s texts, %s", work.recipe, f"{sum(map(len, blocks)):,}", cache.folder)
        if work.workers == 1:
            translate_blocks(blocks, translator, cache, work.target, tell=Progress(blocks, cache))
        else:
            _together(blocks, work, cache)
    known = cache.read().set_index(["language", "text"])["translation"]
    found = known.reindex(pd.MultiIndex.from_frame(rest))
    assert found.notna().all(), "every block is translated"
    translations = pairs["text"].copy()
    translations[~own] = found.to_numpy()
    return translations.rename("translation")


def _unknown(pairs: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    there = pd.MultiIndex.from_frame(pairs).isin(pd.MultiIndex.from_frame(known[["language", "text"]]))
    return pairs[~there]


class Progress:
    """Says from time to time how much of the work is done, by all that share it, how fast, and how long it will take.

    Attributes
    ----------
    blocks, cache
        The work, and where it goes.
    """

    def __init__(self, blocks: Sequence[Block], cache: TranslationCache) -> None:
        self.blocks, self.cache = blocks, cache
        self.total = sum(map(len, blocks))
        self.started = self.told = time.perf_counter()
        self.before = self._done()

    def __call__(self, *, last: bool = False) -> None:
        """Say it if it is time to."""
        now = time.perf_counter()
        if not last and now - self.told < TELL_SECONDS:
            return
        self.told = now
        done, seconds = self._done(), max(now - self.started, 1e-9)
        if done == self.total and not last:
            return
        rate = (done - self.before) / seconds
        words = (
            f"{(self.total - done) / rate / 60:.1f} minutes left" if rate and done < self.total else f"{seconds:.1f} s"
        )
        log.info("translated %s of %s texts, %.1f/s, %s", f"{done:,}", f"{self.total:,}", rate, words)

    def _done(self) -> int:
        return sum(len(block) for block in self.blocks if self.cache.has(block))


def translate_blocks(
    blocks: Sequence[Block], translator: Translator, cache: TranslationCache, target: str, *, tell: Progress | None
) -> None:
    """Translate the blocks that nobody else has; then wait for the others' and do what they left.

    Another process that is killed frees its block, and whoever waits for it translates it.
    """
    for wait in (False, True):
        for block in blocks:
            if cache.has(block):
                continue
            with cache.claimed(block, wait=wait) as ours:
                if ours:
                    cache.write(block, translate_block(block, translator, target))
            if tell:
                tell()
    if tell:
        tell(last=True)


def translate_block(block: Block, translator: Translator, target: str) -> list[str]:
    """The translations of a block, in its order."""
    answers = [""] * len(block)
    for language in dict.fromkeys(block.languages):
        places = [place for place, own in enumerate(block.languages) if own == language]
        texts = [block.texts[place] for place in places]
        for place, answer in zip(places, translator.translate(texts, source=language, target=target), strict=True):
            answers[place] = answer
    return answers


def _together(blocks: Sequence[Block], work: Translating, cache: TranslationCache) -> None:
    """Several processes translate the blocks, this one tells how far they are."""
    from multiprocessing import get_context

    context, level = get_context("spawn"), logging.getLogger("pipelines").getEffectiveLevel()
    shares = [
        replace(work, workers=1, resources=resources) for resources in worker_resources(work.resources, work.workers)
    ]
    workers = [context.Process(target=_alone, args=(blocks, share, level)) for share in shares]
    tell = Progress(blocks, cache)
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.2)
            tell()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    tell(last=True)
    if not all(cache.has(block) for block in blocks):
        codes = ", ".join(str(worker.exitcode) for worker in workers)
        raise CompetitionError(
            f"the workers stopped early (exit codes {codes})",
            advice="look at their messages; the same command goes on where they stopped",
        )


def worker_resources(resources: Resources, workers: int) -> list[Resources]:
    """What each of several workers may use: its share of the threads, a GPU of its own where there are some.

    Examples
    --------
    >>> [each.threads for each in worker_resources(Resources(threads=8, device="cpu"), 2)]
    [4, 4]
    """
    threads = max(1, resources.threads // workers)
    devices = [resources.device] if resources.device not in ("auto", "cuda") else gpus() or ["cpu"]
    return [replace(resources, threads=threads, device=devices[i % len(devices)]) for i in range(workers)]


def gpus() -> list[str]:
    """The GPUs of this machine: ``cuda:0``, ``cuda:1`` and so on."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def _alone(blocks: Sequence[Block], work: Translating, level: int) -> None:
    """What a process of `_together` does."""
    narrate(quiet=level > logging.INFO, verbose=level < logging.INFO)
    try:
        translator = work.translator()
        translate_blocks(blocks, translator, work.cache(translator), work.target, tell=None)
    except CompetitionError as error:
        log.error("a worker stops: %s", error)
        sys.exit(error.exit_code)


def own_resources(*, tables: Sequence[Path] = (), glossaries: Sequence[Path] = (), device: str = "auto") -> Resources:
    """Resources with the threads that this process may use."""
    return Resources(tuple(tables), tuple(glossaries), available_threads(), device)
