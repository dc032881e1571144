"""The pictures beyond the paper, and their interactive counterparts: drawn without a warning, of one seed and of three."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from sinkscope.figures import PICTURES, draw_all
from sinkscope.plots.style import COLUMN, PAGE, color
from sinkscope.studies.study import Study
from tests.figures.fake_following import ANALYSES, OF

Following = Callable[[str, int], Study]
COLORS = {
    "sink_link": ("prefix", "clean", "unlearned"),
    "variations": ("prefix", "clean", "unlearned"),
    "across": ("clean", "triggered"),
}
KINDS = ("png", "pdf", "csv")


pytestmark = pytest.mark.usefixtures("strict_pictures")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", OF)
def test_picture_and_twin(following: Following, name: str, n: int) -> None:
    picture = PICTURES[name]
    frame = picture.frame(following(OF[name], n))
    assert {"value", "ci_low", "ci_high", "n", "seeds"} <= set(frame.columns)
    figure = picture.draw(frame)
    assert figure.get_figwidth() in (COLUMN, PAGE)
    assert int(frame["seeds"].max()) == n
    caption = " ".join(figure.get_suptitle().split())
    assert "n = " in caption and ("one seed" if n == 1 else "3 seeds") in caption
    twin = picture.twin(frame).to_json().lower()
    assert all(color(shade) in twin for shade in COLORS.get(name, ()))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axis in figure.axes:
        for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
            boxes = [
                tick.get_window_extent(renderer)
                for tick in ticks
                if axis.get_visible() and tick.get_visible() and tick.get_text()
            ]
            assert not [
                (one, other)
                for one, other in combinations(boxes, 2)
                if one.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9))
            ]


@pytest.mark.parametrize("specification", ["link", "origin", "variations"])
def test_a_study_gets_the_pictures_it_has_grids_for(
    following: Following, tmp_path: Path, specification: str
) -> None:
    written, skipped = draw_all(following(specification, 1), tmp_path)
    mine = {name for name, of in OF.items() if of == specification}
    assert set(written) == {
        f"{name}.{kind}" for name in mine for kind in (*KINDS, *(["md"] if PICTURES[name].markdown else []))
    }
    assert set(skipped) == set(PICTURES) - mine


@pytest.mark.parametrize("name", ["sink_regression", "across"])
def test_script(following: Following, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(
        sys, "argv", [f"{name}.py", str(following(OF[name], 1).directory), "--out", str(tmp_path)]
    )
    runpy.run_path(str(ANALYSES / f"{name}.py"), run_name="__main__")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png", f"{name}.pdf", f"{name}.csv"}


def test_every_picture_has_a_script() -> None:
    assert all(f'script("{name}")' in (ANALYSES / f"{name}.py").read_text(encoding="utf-8") for name in OF)
