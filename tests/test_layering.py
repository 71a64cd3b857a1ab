"""The import rule: competition <- oof <- submissions <- pipelines; and what importing may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("competition", "oof", "submissions", "pipelines", "relstack")
HEAVY = ("torch", "transformers", "lightgbm", "optuna", "sklearn", "sentence_transformers", "pandas")


def imported_packages(file: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("place", range(len(LAYERS)))
def test_imports_run_one_way(place: int) -> None:
    later = set(LAYERS[place + 1 :]) | {"tests", "benchmarks"}
    files = sorted((ROOT / LAYERS[place]).rglob("*.py"))
    assert files
    for file in files:
        assert not imported_packages(file) & later, f"{file} imports a later layer"


def test_importing_the_python_interface_imports_nothing_heavy() -> None:
    code = (
        "import sys, relstack; dir(relstack)\n"
        f"print([name for name in {(*HEAVY, 'pipelines', 'competition')!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from pipelines.cli import main\n"
        "for command in [[], *[[name] for name in main.commands]]:\n"
        "    assert CliRunner().invoke(main, [*command, '--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
