"""Which job comes first: one rule, by which the engines work and the simulation foretells them."""

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter


def chains(needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of every job together with those of the longest chain of jobs that wait for it (Hu 1961).

    `needs` has every job; what is needed besides counts as done. A job without `seconds` takes none.

    Examples
    --------
    >>> found = chains({"weights": (), "fold": ("weights",), "other": ()}, {"weights": 2.0, "fold": 3.0, "other": 4.0})
    >>> [found[name] for name in ("weights", "fold", "other")]
    [5.0, 3.0, 4.0]
    """
    found: dict[str, float] = {}
    behind: dict[str, float] = {}
    for name in reversed([*TopologicalSorter(needs).static_order()]):
        if name in needs:
            found[name] = seconds.get(name, 0.0) + behind.get(name, 0.0)
            for needed in needs[name]:
                behind[needed] = max(behind.get(needed, 0.0), found[name])
    return found


def rank(*, gpus: int, chain: float) -> tuple[float, float]:
    """The place of a job among those that could start: most GPUs first, of these the longest of `chains`."""
    return -gpus, -chain
