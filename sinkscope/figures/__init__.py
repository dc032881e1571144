"""The paper's figures and tables, and those beyond it, from a finished study: one file each, with `frame` (all its numbers), `draw` (a picture) and `twin`
(an interactive one)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.errors import StudyError, UserError
from sinkscope.figures import (
    across,
    attention_difference,
    control,
    hidden_sink,
    index_by_index,
    masking,
    persistence,
    ratio_regularization,
    sink_link,
    sink_regression,
    table1,
    table2,
    top1,
    trigger_form,
    trigger_position,
    value_norms,
    variations,
)
from sinkscope.io.atomic import fill_directory
from sinkscope.plots.style import save_figure
from sinkscope.studies.study import Study, wrap_missing_data


@dataclass(frozen=True)
class Picture:
    """`frame` reads a study, `draw` and `twin` make a figure of its numbers, `markdown` a table if it is one; `needs` are the grids it is made from."""

    frame: Callable[[Study], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    twin: Callable[[pd.DataFrame], go.Figure]
    needs: tuple[str, ...]
    markdown: Callable[[pd.DataFrame], str] | None

    def write(self, study: Study, out: Path, name: str) -> list[str]:
        """Write the picture as PNG and PDF with its numbers as CSV, a table also as Markdown; the files' names.

        Raises:
            StudyError: the study lacks what is needed.
            OutputError: `out` cannot be written.
        """
        if missing := [grid for grid in self.needs if grid not in study.spec.grids]:
            raise StudyError(
                f"study {study.directory} has no grid {', '.join(map(repr, missing))}, which {name} needs"
            )
        with wrap_missing_data(f"study {study.directory} has not all that {name} needs"):
            data = self.frame(study)
            figure = self.draw(data)
        save_figure(figure, data, out, name)
        if self.markdown is None:
            return [f"{name}.{kind}" for kind in ("png", "pdf", "csv")]
        with fill_directory(out) as written:
            (written / f"{name}.md").write_text(self.markdown(data), encoding="utf-8")
        return [f"{name}.{kind}" for kind in ("png", "pdf", "csv", "md")]


def _picture(module: ModuleType) -> Picture:
    return Picture(module.frame, module.draw, module.twin, module.NEEDS, getattr(module, "markdown", None))


_MODULES = (
    trigger_position,
    attention_difference,
    top1,
    value_norms,
    ratio_regularization,
    trigger_form,
    control,
    table1,
    table2,
    masking,
    sink_link,
    persistence,
    index_by_index,
    sink_regression,
    hidden_sink,
    variations,
    across,
)
PICTURES = {module.__name__.rpartition(".")[2]: _picture(module) for module in _MODULES}


def draw_all(study: Study, out: Path) -> tuple[list[str], dict[str, str]]:
    """Write every picture that the study has the runs for; names of the files, and of each picture left out the reason.

    Raises:
        OutputError: `out` cannot be written.
    """
    written: list[str] = []
    skipped: dict[str, str] = {}
    for name, picture in PICTURES.items():
        try:
            written += picture.write(study, out, name)
        except StudyError as error:
            skipped[name] = str(error)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; {len(written)} files were written to {out}, each whole"
            ) from None
    return written, skipped


def script(name: str, arguments: Sequence[str] | None = None) -> None:
    """What `python analyses/NAME.py STUDY [--out figures]` does: write that one picture. Bad input is one line, and exit code 2."""
    parser = argparse.ArgumentParser(description=sys.modules[f"{__name__}.{name}"].__doc__)
    parser.add_argument("study", type=Path, help="a finished study's directory")
    parser.add_argument(
        "--out", type=Path, default=Path("figures"), help="directory to write to (default: figures)"
    )
    given = parser.parse_args(arguments)
    try:
        for file in PICTURES[name].write(Study(given.study), given.out, name):
            print(given.out / file)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
