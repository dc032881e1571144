"""Write the generated parts of all pages: `python .docs/generate.py`.

They stand between two comments, `<!-- generated: NAME -->` and `<!-- end -->`: tables of claims, the keys of
recipes, studies and benchmarks, and the files of tests/plugins. They are committed, so that a page is whole
wherever it is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from reference import REFERENCES

ROOT = Path(__file__).parents[1]
PAGES = ROOT / ".docs" / "pages"
PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.S)


def sources() -> dict[str, Callable[[], str]]:
    """Name of a part -> how it is made."""
    claims = {
        mark: partial((ROOT / "figures" / f"{mark.replace(' ', '_')}.md").read_text, encoding="utf-8")
        for mark in ("claims", "target claims")
    }
    plugins = {
        f"plugin {kind}": partial(_code, ROOT / "tests" / "plugins" / f"{kind}.py")
        for kind in ("objective", "metric", "benchmark", "figure")
    }
    return claims | plugins | REFERENCES


def _code(path: Path) -> str:
    return f"```python\n{path.read_text(encoding='utf-8').strip()}\n```\n"


def fill(text: str) -> str:
    """A page with its generated parts as they are now."""
    made = sources()
    return PART.sub(lambda part: f"{part[1]}\n{made[part[2]]().strip()}\n\n{part[3]}", text)


def main() -> None:
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            page.write_text(filled, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
