"""The training side of a fold with extra rows: noise that keeps labels, made-up negatives, another rate of label 1."""

import logging
from typing import TYPE_CHECKING

import pandas as pd

from competition.augmentation import with_casing, with_extra, with_suffixes, with_typos
from competition.negatives import Space, easy_negatives, hard_negatives, resample_to_prior
from competition.tasks import Task
from pipelines.augment_section import AugmentSection

if TYPE_CHECKING:
    from pipelines.backbones.protocol import Workspace

log = logging.getLogger(__name__)


def augmented(
    train: pd.DataFrame, section: AugmentSection, task: Task, *, seed: int, space: Space | None = None
) -> pd.DataFrame:
    """The training rows, the very same where everything is off; else with extra ones (`parent`) and resampled.

    Parameters
    ----------
    train
        The training side of a fold: nothing is taken from anywhere else.
    space
        What hard negatives are similar in; None is character n-grams.
    """
    shares = section.shares
    if not task.target_is_category:
        shares.pop("suffixes", None)
    extra: dict[str, pd.DataFrame] = {}
    for name, share in shares.items():
        if name == "typos":
            extra[name] = with_typos(train, share=share, rate=section.typo_rate, seed=seed)
        elif name == "casing":
            extra[name] = with_casing(train, share=share, seed=seed)
        elif name == "suffixes":
            extra[name] = with_suffixes(train, share=share, seed=seed)
        elif name == "easy_negatives":
            extra[name] = easy_negatives(train, task, share=share, seed=seed)
        else:
            extra[name] = hard_negatives(train, task, share=share, hardness=section.hardness, seed=seed, space=space)
    found = {name: frame for name, frame in extra.items() if len(frame)}
    rows = with_extra(train, list(found.values())) if found else train
    if section.positive_rate is not None:
        rows = resample_to_prior(rows, section.positive_rate, seed=seed)
    if rows is not train:
        words = ", ".join(f"{len(frame):,} {name.replace('_', ' ')}" for name, frame in found.items()) or "resampling"
        log.info("%s training rows became %s: %s", f"{len(train):,}", f"{len(rows):,}", words)
    return rows


def neighbour_space(section: AugmentSection, workspace: "Workspace") -> Space | None:
    """Embeddings by the encoder that the section names, None where it names none or makes no hard negatives."""
    if section.neighbours is None or not section.hard_negatives:
        return None
    from pipelines.backbones.bi_encoder import shared_embedder
    from pipelines.config import EncoderSection

    return shared_embedder(section.neighbours, EncoderSection(), workspace.cache, workspace.threads)
