"""Under which licence pretrained weights are published, as the hub spells it."""

import re
from collections.abc import Iterable

OWN = "apache-2.0"  # where nothing pretrained is used
OTHER = "other"
# As the model cards on the hub said in 2025; the first pattern that fits a name counts.
KNOWN = (
    (re.compile(r"intfloat/multilingual-e5-\w+"), "mit"),
    (re.compile(r"FacebookAI/xlm-roberta-\w+"), "mit"),
    (re.compile(r"microsoft/mdeberta-v3-\w+"), "mit"),
    (re.compile(r"google/gemma-\d.*"), "gemma"),
    (re.compile(r"Qwen/Qwen2\.5-3B.*"), "qwen-research"),
    (re.compile(r"Qwen/.*"), OWN),
)
HUB_IDS = ("apache-2.0", "gemma", "mit", "other")


def licence_of(weights: str) -> str | None:
    """The licence of weights by their hub name; None where we do not know.

    Examples
    --------
    >>> licence_of("google/gemma-3-12b-pt"), licence_of("somebody/model")
    ('gemma', None)
    """
    return next((licence for pattern, licence in KNOWN if pattern.fullmatch(weights)), None)


def licence_of_all(weights: Iterable[str]) -> tuple[str, str | None]:
    """The hub's name of the licence that covers all the weights, and ours where the hub's is ``other``.

    Examples
    --------
    >>> licence_of_all([]), licence_of_all(["google/gemma-3-1b-pt", "intfloat/multilingual-e5-small"])
    (('apache-2.0', None), ('other', 'gemma, mit'))
    """
    found = sorted({licence_of(name) or "unknown" for name in weights})
    if not found:
        return OWN, None
    return (found[0], None) if len(found) == 1 and found[0] in HUB_IDS else (OTHER, ", ".join(found))
