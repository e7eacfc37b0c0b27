"""Run a tutorial's commands as they stand and take its figures out of the reports: docs/_tutorials.py PAGE ...

A figure is a line ``<!-- figure: REPORT.html .s-SECTION -->`` before the image that it becomes. Needs Chromium.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
WIDTH, TALLEST, QUALITY = 1100, 900, 82


def commands(text: str) -> list[list[str]]:
    """Every line of the page's blocks of shell, as words."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in "".join(blocks).splitlines() if line.strip()]


def figures(text: str) -> list[tuple[str, str, str]]:
    """Report, section and image of every figure."""
    return re.findall(r"<!-- figure: (\S+) (\S+) -->\s*!\[[^\]]*\]\(\.\./(images/[^)]+)\)", text)


def shoot(report: Path, section: str, image: Path) -> None:
    """One section of a report, cut at `TALLEST` pixels, as WebP."""
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        part = page.locator(section).first
        part.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        pixels = cv2.imdecode(np.frombuffer(part.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        browser.close()
    image.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), pixels[:TALLEST], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])


def main(pages: list[Path]) -> None:
    """Run each page in a folder of its own."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            for words in commands(text):
                print("$", shlex.join(words), flush=True)
                subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)
            for report, section, image in figures(text):
                shoot(Path(folder) / report, section, DOCS / image)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]] or sorted((DOCS / "tutorials").glob("*.md")))
