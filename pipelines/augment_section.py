"""The recipe table ``[augment]``: which extra rows the training side of a fold gets."""

from typing import ClassVar

from pydantic import Field

from pipelines.sections import Section, WeightsSection


class AugmentSection(Section):
    """Extra training rows; everything is off by default. Held-out rows, dev and test never change.

    Parameters
    ----------
    typos
        Share of the rows that get a copy whose query and translation have typos (alphabetic scripts only).
    typo_rate
        Share of the words that are misspelt in such a copy.
    casing
        Share of the rows that get a copy in another casing; of use only where cleaning keeps the case.
    easy_negatives, hard_negatives
        Share of the rows with label 1 that give a negative from another branch, from nearby.
    hardness
        How near: 1 is the most similar target that is not known as relevant, 0 the least similar, see
        `competition.negatives.hard_negatives`.
    neighbours
        A sentence encoder that says what is similar; without one, character n-grams do.
    positive_rate
        The rate of label 1 among all rows, reached by dropping rows of the other label.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    typos: float = Field(0.0, ge=0, le=1)
    typo_rate: float = Field(0.2, gt=0, le=1)
    casing: float = Field(0.0, ge=0, le=1)
    easy_negatives: float = Field(0.0, ge=0, le=1)
    hard_negatives: float = Field(0.0, ge=0, le=1)
    hardness: float = Field(0.8, ge=0, le=1)
    neighbours: WeightsSection | None = None
    positive_rate: float | None = Field(None, gt=0, lt=1)

    @property
    def shares(self) -> dict[str, float]:
        """The kinds of extra rows that are on, and their share."""
        names = ("typos", "casing", "suffixes", "easy_negatives", "hard_negatives")
        return {name: share for name in names if (share := getattr(self, name, 0.0))}


class TextAugmentSection(AugmentSection):
    """That of networks, which read texts.

    Parameters
    ----------
    suffixes
        Share of the rows that get a copy whose category path is shown without its first levels.
    """

    suffixes: float = Field(0.0, ge=0, le=1)
