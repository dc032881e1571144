"""Make every figure, table and claim of a finished study: `python analyses/make.py STUDY [--out DIR] [--only
NAME …]`.

Each module in this directory with `NEEDS`, `compute`, `caption` and `plot`, or with a `FIGURE` that has them,
is a figure; its docstring's first line is the title. A figure is written as NAME.svg, NAME.pdf, NAME.png and
NAME.csv (a table also as NAME.md). Claims are those of the paper, claims.csv and claims.md; for a study of
several targets the pre-registered ones, target_claims.csv and target_claims.md, with its other analyses as
target_NAME.csv. index.json lists the figures, with the identity of the study and the checksum of every file.
A figure that the study lacks the data for is skipped with the reason; if --only names it, the exit code is 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import compress
from pathlib import Path
from types import ModuleType

import pandas as pd
from claims import format_markdown, judge, summarize
from common import require_numbers, wrap_missing_data
from matplotlib.figure import Figure as Drawing
from paper_claims import paper_claims
from target_claims import find_targets, judge_targets
from target_claims import format_markdown as format_target_claims
from target_secondary import secondary_tables

from sinkscope.errors import StudyError, UserError
from sinkscope.io.atomic import fill_directory
from sinkscope.io.run_directory import sha256, wrap_read_errors
from sinkscope.plots.style import save_figure
from sinkscope.studies.figure_index import INDEX, FigureEntry, FigureIndex
from sinkscope.studies.study import Study

CLAIMS = "claims"
FORMATS = ("svg", "pdf", "png")
ORDER = ("fig", "table", "control", "ext")
"""Prefixes of names, in the order of the index; other names come last."""


@dataclass(frozen=True)
class FigureScript:
    """One figure: how to compute its numbers from a study, and how to plot them."""

    name: str
    title: str
    needs: tuple[str, ...]
    compute: Callable[[Study], pd.DataFrame]
    caption: Callable[[pd.DataFrame], str]
    plot: Callable[[pd.DataFrame], Drawing]
    markdown: Callable[[pd.DataFrame], str] | None = None

    @classmethod
    def of_module(cls, module: ModuleType) -> FigureScript:
        title = (module.__doc__ or module.__name__).strip().splitlines()[0].rstrip(".")
        figure = getattr(module, "FIGURE", module)
        needs = module.NEEDS if figure is module else figure.needs
        functions = (figure.compute, figure.caption, figure.plot, getattr(figure, "markdown", None))
        return cls(module.__name__, title, needs, *functions)

    @property
    def files(self) -> list[str]:
        """The names of all files of the figure."""
        kinds = [*FORMATS, "csv", *(["md"] if self.markdown else [])]
        return [f"{self.name}.{kind}" for kind in kinds]

    def write(self, study: Study, out: Path) -> FigureEntry:
        """Write all files of the figure into `out`.

        Returns:
            The figure's entry in index.json.

        Raises:
            StudyError: the study lacks what the figure needs.
            OutputError: `out` cannot be written.
        """
        if missing := [grid for grid in self.needs if grid not in study.spec.grids]:
            grids = ", ".join(map(repr, missing))
            raise StudyError(f"study {study.directory} has no grid {grids}, which {self.name} needs")
        with wrap_missing_data(f"study {study.directory} lacks what {self.name} needs"):
            frame = self.compute(study)
            figure, caption = self.plot(frame), self.caption(frame)
            markdown = self.markdown(frame) if self.markdown else None
        save_figure(figure, frame, out, self.name, FORMATS)
        if markdown is not None:
            _write_text(out, f"{self.name}.md", markdown)
        svg, csv = f"{self.name}.svg", f"{self.name}.csv"
        return FigureEntry(name=self.name, title=self.title, caption=caption, svg=svg, csv=csv)


def find_figures() -> dict[str, FigureScript]:
    """Name -> figure, of all modules here that are figures, in the order of the index."""
    names = [
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("benchmark_")
    ]
    modules = [import_module(name) for name in names if name != Path(__file__).stem]
    is_figure = [hasattr(module, "FIGURE") or hasattr(module, "plot") for module in modules]
    figures = [FigureScript.of_module(module) for module in compress(modules, is_figure)]
    return {figure.name: figure for figure in sorted(figures, key=_rank)}


def _rank(figure: FigureScript) -> tuple[int, str]:
    prefixes = [rank for rank, prefix in enumerate(ORDER) if figure.name.startswith(prefix)]
    return (prefixes[0] if prefixes else len(ORDER), figure.name)


def make(study: Study, out: Path, figures: Sequence[FigureScript], has_claims: bool = True) -> dict[str, str]:
    """Write figures and claims into `out`, and the index of all figures in it.

    Returns:
        Name of a skipped figure -> reason.

    Raises:
        OutputError: `out` cannot be written, or its index cannot be read.
    """
    index = _read_index(study, out)
    order = list(find_figures())
    skipped: dict[str, str] = {}
    for figure in figures:
        others = [entry for entry in index.figures if entry.name != figure.name]
        try:
            index.figures = _sort([*others, figure.write(study, out)], order)
            _write_index(out, index, figure.files)
            print(out / f"{figure.name}.svg")
        except StudyError as error:
            index.figures = others
            skipped[figure.name] = str(error)
            print(f"skipped {figure.name}: {error}")
    _write_index(out, index, _write_claims(study, out) if has_claims else [])
    return skipped


def _write_claims(study: Study, out: Path) -> list[str]:
    """Write the claims that the study is about, and of several targets the other analyses.

    Returns:
        The names of the files.

    Raises:
        StudyError: a study of several targets is not complete.
    """
    if targets := find_targets(study):
        claims, parts = judge_targets(study, targets)
        tables = {"target_claims": claims, "target_parts": parts} | secondary_tables(study, targets)
        for name, table in tables.items():
            require_numbers(table, f"study {study.directory}, {name}.csv")
        text = format_target_claims(claims)
    else:
        claims = judge(study, paper_claims())
        tables, text = {CLAIMS: claims}, format_markdown(claims)
    name = next(iter(tables))
    for each, table in tables.items():
        csv = table.to_csv(index=False, float_format="%.4g", lineterminator="\n")
        _write_text(out, f"{each}.csv", csv)
    _write_text(out, f"{name}.md", text)
    print(f"{out / name}.csv: {summarize(claims)}")
    return [f"{name}.md", *(f"{each}.csv" for each in tables)]


def _read_index(study: Study, out: Path) -> FigureIndex:
    """The older index of `out` without files that were removed; of another study, it has no figures."""
    index = FigureIndex.read(out, "delete it") or FigureIndex(study=study.identity, files={}, figures=[])
    files, others = (
        {name: digest for name, digest in each.items() if (out / name).is_file()}
        for each in (index.files, index.others)
    )
    if index.study != study.identity:
        return FigureIndex(study=study.identity, files={}, figures=[], others=others | files)
    figures = [entry for entry in index.figures if {entry.svg, entry.csv} <= set(files)]
    return FigureIndex(study=study.identity, files=files, figures=figures, others=others)


def _sort(entries: Sequence[FigureEntry], order: Sequence[str]) -> list[FigureEntry]:
    """Entries in the order of the figures here; others come last."""
    return sorted(entries, key=lambda each: order.index(each.name) if each.name in order else len(order))


def _write_index(out: Path, index: FigureIndex, written: Sequence[str]) -> None:
    """Write the index, with new checksums of the files that were written."""
    for name in written:
        index.others.pop(name, None)
        index.files[name] = sha256(out / name)
    _write_text(out, INDEX, index.model_dump_json(indent=1) + "\n")


def _write_text(out: Path, name: str, text: str) -> None:
    with fill_directory(out) as staging:
        (staging / name).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="directory of a finished study")
    parser.add_argument("--out", type=Path, help="directory to write to (default: STUDY/figures)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"figures to make, or {CLAIMS} (default: all)"
    )
    options = parser.parse_args(arguments)
    figures = find_figures()
    names = options.only or [*figures, CLAIMS]
    try:
        if unknown := [name for name in names if name not in (*figures, CLAIMS)]:
            raise UserError(f"there is no figure {unknown[0]!r}; choose from {', '.join([*figures, CLAIMS])}")
        out = options.out or options.study / "figures"
        with wrap_read_errors(options.study):
            study = Study(options.study)
            chosen = [figures[name] for name in names if name != CLAIMS]
            skipped = make(study, out, chosen, CLAIMS in names)
            if options.only and skipped:
                name, reason = next(iter(skipped.items()))
                raise StudyError(f"{len(skipped)} of {len(names)} were not made, first {name}: {reason}")
    except UserError as error:
        print(f"make.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("make.py: interrupted; every file that was written is complete", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
