"""Every error that a user can cause says what to do next, or its faults do: the places that raise are read."""

import ast
from functools import lru_cache
from pathlib import Path

from competition.errors import CompetitionError

ROOT = Path(__file__).parent.parent
PACKAGES = ("competition", "oof", "submissions", "pipelines")

FAULTS_SAY_IT = {
    # Python functions that are handed something else than they take: the fault is the argument, and what it may be.
    "competition/comparison.py: these columns cannot be compared",
    "competition/metrics.py: these columns cannot be scored",
    "competition/near_duplicates.py: near-duplicates cannot be looked for",
    "competition/negatives.py: negatives cannot be made",
    "competition/negatives.py: these rows cannot have that rate of label 1",
    "oof/blend.py: these are no blend weights",
    "oof/blend.py: these are no votes",
    "oof/calibration.py: these scores cannot be calibrated",
    "oof/crossfit.py: these cross-fitted scores belong to something else",
    "oof/logistic.py: this is no logistic regression on base learners",
    "oof/mix.py: this is no mixture",
    "oof/priors.py: no share of positives can be estimated",
    "oof/pseudo_labels.py: no pseudo-labels can be chosen",
    "oof/teacher.py: these labels cannot be mixed",
    "oof/teacher.py: too few folds",
    "oof/threshold.py: no threshold can be chosen on these rows",
    "pipelines/simulation.py: jobs need each other in a circle",
    "pipelines/simulation.py: jobs need jobs that are not there",
    "submissions/leaderboard.py: a leaderboard entry is faulty",
    "submissions/leaderboard.py: the leaderboard repeats a model",
    # Caught on the way: the training goes on with smaller pieces.
    "pipelines/backbones/network_trainer.py: the memory does not hold a batch's activations",
    "pipelines/api.py: these settings cannot be",
    # Options of a command: the fault names the option and what it may be, or the thing and the names that are there.
    "pipelines/submitting.py: a student's cut cannot be matched to a share of positives",
    "pipelines/evaluating.py: these cannot be compared",
    "pipelines/evaluating.py: this cannot be evaluated",
    "pipelines/pretraining.py: this pre-training cannot be",
    "pipelines/report/writing.py: this report cannot be",
    "pipelines/study_plan.py: this study cannot be",
}


def error_names() -> set[str]:
    """`CompetitionError` and all errors that are one, by name."""
    bases: dict[str, set[str]] = {}
    for _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    names = {"CompetitionError"}
    while more := {name for name, above in bases.items() if above & names} - names:
        names |= more
    return names


@lru_cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return tuple((str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def summary_of(call: ast.Call) -> str:
    """The fixed words of the summary."""
    first = call.args[0] if call.args else ast.Constant("")
    if isinstance(first, ast.JoinedStr):
        words = "".join(part.value for part in first.values if isinstance(part, ast.Constant))
        return words.strip(" :")
    return str(first.value) if isinstance(first, ast.Constant) else ast.unparse(first)


@lru_cache
def without_advice() -> set[str]:
    """``path: summary`` of every error that is made without advice."""
    names = error_names()
    found = set()
    for path, tree in modules():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names):
                continue
            if not any(keyword.arg in ("advice", None) for keyword in node.keywords):
                found.add(f"{path}: {summary_of(node)}")
    return found


def test_every_error_says_what_to_do_next() -> None:
    assert {"CompetitionError", "MismatchError", "DiskFullError"} <= error_names()
    assert without_advice() - FAULTS_SAY_IT == set()


def test_the_list_of_exceptions_holds_no_more_than_there_is() -> None:
    assert without_advice() >= FAULTS_SAY_IT


def test_the_advice_is_printed_last() -> None:
    assert str(CompetitionError("no", advice="do this")).splitlines()[-1] == "What to do: do this"
