"""The captions in figures/README.md are those of the committed tables."""

from __future__ import annotations

from pathlib import Path

import captions

FIGURES = Path(__file__).parents[2] / "figures"


def test_the_index_of_figures_has_the_captions_of_its_tables() -> None:
    page = (FIGURES / "README.md").read_text(encoding="utf-8")
    assert captions.format_captions(FIGURES) in page, "run `python analyses/captions.py figures`"


def test_every_picture_with_a_table_is_in_the_index() -> None:
    page = (FIGURES / "README.md").read_text(encoding="utf-8")
    pictures = {path.stem for path in FIGURES.glob("*.png")} & {path.stem for path in FIGURES.glob("*.csv")}
    assert [name for name in sorted(pictures) if f"]({name}.png)\n" not in page] == []


def test_other_text_of_the_page_stays() -> None:
    new = f"{captions.BEGIN}\n\nnew\n\n{captions.END}"
    once = captions.replace_captions("# Figures\n\nText.\n", new)
    assert once == f"# Figures\n\nText.\n\n{new}\n"
    assert captions.replace_captions(f"{once}\nMore.\n", new) == f"{once}\nMore.\n"
