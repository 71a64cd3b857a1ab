"""Pictures of a run's report for the documentation, taken by a headless Chromium.

    python docs/screenshots.py runs/demo/run

writes ``docs/images/report-*.png`` from the run's ``report.html``. It needs playwright and Pillow, and a Chromium on
PATH; the pictures are reduced to a palette, which keeps each below 300 KB.
"""

import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
N_COLOURS = 128
LARGEST = 300_000  # bytes


@dataclass(frozen=True)
class Shot:
    """One picture: what is looked at ("" for the top), the window's width and height, light or dark, the scale."""

    name: str
    part: str
    width: int
    height: int
    scheme: str
    scale: float


SHOTS = (
    Shot("report-light", "", 1280, 960, "light", 1.0),
    Shot("report-dark", "QC-breakdown", 1280, 900, "dark", 1.0),
    Shot("report-rows", "rows", 1280, 960, "light", 1.0),
    Shot("report-phone", "QC-threshold", 390, 844, "dark", 2.0),
)
LANGUAGE = "pt"  # of the rows shown: not every machine has the fonts of all languages


def main(run: Path) -> None:
    """Take every picture of the report of `run`."""
    report = run.resolve() / "report.html"
    if not report.is_file():
        sys.exit(f"{report} is not there; write it: relstack report --run {run}")
    IMAGES.mkdir(exist_ok=True)
    with browser() as opened:
        for shot in SHOTS:
            path = IMAGES / f"{shot.name}.png"
            path.write_bytes(reduced(taken(opened, report, shot)))
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
            if path.stat().st_size > LARGEST:
                sys.exit(f"{path} is larger than {LARGEST / 1000:.0f} kB: make its window smaller")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is on PATH")
    with sync_playwright() as tools:
        opened = tools.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield opened
        opened.close()


def taken(opened: Any, report: Path, shot: Shot) -> bytes:
    """The PNG of one picture."""
    context = opened.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.scheme,
        reduced_motion="reduce",
        device_scale_factor=shot.scale,
    )
    page = context.new_page()
    page.goto(f"{report.as_uri()}#{shot.part}")
    if shot.part == "rows":
        page.wait_for_selector("#rows-table tbody tr")
        page.select_option("[name=language]", LANGUAGE)
        page.evaluate("document.querySelector('#filters').scrollIntoView()")
    picture: bytes = page.screenshot()
    context.close()
    return picture


def reduced(picture: bytes) -> bytes:
    """The picture in a palette."""
    from PIL import Image

    written = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(N_COLOURS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/run"))
