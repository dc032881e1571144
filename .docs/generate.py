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

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from reference import REFERENCES

from tests.sinks.architectures import EQUAL, RUNS

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
    return claims | plugins | REFERENCES | {"architectures": _architectures}


def _architectures() -> str:
    """What `architectures.py` found: those that are captured, those that are refused, and the others."""
    table = pd.read_csv(ROOT / ".docs" / "architectures.csv", keep_default_na=False)
    is_built = table["class"] != ""
    is_right = table[["tiled", "hooks"]].isin([EQUAL, RUNS])
    captured, refused = table[is_right.any(axis=1)], table[is_built & ~is_right.any(axis=1)]
    marks = {EQUAL: "yes", RUNS: "runs"}
    lines = [
        f"With transformers {table['transformers'].iloc[0]}: {len(captured)} architectures are captured, "
        f"{len(refused)} are refused, and {(~is_built).sum()} could not be built from sizes alone.",
        "",
        "| architecture | class | tiled | hooks |",
        "|---|---|---|---|",
    ]
    for row in captured.itertuples():
        cells = [marks.get(cell, cell) for cell in (row.tiled, row.hooks)]
        lines.append(f"| {row.architecture} | `{row[2]}` | {cells[0]} | {cells[1]} |")
    lines += ["", "| refused | why |", "|---|---|"]
    lines += [f"| {row.architecture} | {row.tiled}; {row.hooks} |" for row in refused.itertuples()]
    lines += ["", f"Not tried: {', '.join(table.loc[~is_built, 'architecture'])}."]
    return "\n".join(lines) + "\n"


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
