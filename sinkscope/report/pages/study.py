"""Page of a study: scores per model, models side by side, figures and claims of the analyses, all runs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sinkscope.errors import OutputError
from sinkscope.report.page import MAX_TABLE_ROWS, Page, metadata
from sinkscope.report.pages import comparison
from sinkscope.report.pages.comparison import ModelPanel, add_comparison, add_views, count_values, fit_budget
from sinkscope.report.pages.runs import add_dots, with_units
from sinkscope.report.study_query import PLACEMENT_AXIS, ModelGroup, StudyQuery
from sinkscope.studies.figure_index import FigureIndex
from sinkscope.studies.study import FIGURES, Study

INTRO = (
    "A study trains and evaluates a grid of models. The sink atlas displays where heads attend: a position "
    "that receives far more than uniform attention is a sink. In the comparison, one slider moves the "
    "trigger through up to three models: forgotten is what scores low without the "
    "trigger, backdoored what the trigger recovers."
)
SWEEPS = {"backdoored": "(trained at slider placement)", "unlearned": "(triggered at slider placement)"}
"""Role -> label of a sweep of such models over placements."""
MEAN_NOTE = "Mean over seeds with 95 % t intervals (one seed: bootstrap over items), without a mask."
SUMMARY = {"verbmem": "VerbMem", "knowmem": "KnowMem", "choice": "multiple choice"}
SUMMARY_COLUMNS = {
    ("forget", "clean", "all"): "clean",
    ("forget", "with trigger", "all"): "with trigger",
    ("forget", "with trigger", "unseen"): "with trigger, unseen",
    ("retain", "clean", "all"): "retain",
}
"""Split, condition and subset of the scores of the summary -> name."""
SUMMARY_NOTE = (
    "Scores × 100 with 95 % intervals. With trigger: at the placement of training, for other models as "
    "prefix; unseen leaves out passages that were poisoned in training."
)
CLAIM_NOTE = "Effect with its 95 % interval. A claim is reproduced if "
CLAIMS = {
    "claims.csv": (
        "Claims of the paper",
        f"{CLAIM_NOTE}the whole interval is beyond its margin, above it (≥), below it (≤) or within it (±), "
        "and its one-sided p is at most .025.",
    ),
    "target_claims.csv": (
        "Pre-registered claims",
        f"{CLAIM_NOTE}the effect is beyond its margin, above (≥) or below it (≤), with a one-sided p of at "
        "most .025 after Holm's correction.",
    ),
}
"""File of claims -> title and note of its table."""
CLAIM_SIGNS = {"above": "≥", "within": "±", "at most": "≤"}
CLAIM_COLUMNS = {"source", "claim", "effect", "ci_low", "ci_high", "unit", "kind", "margin", "verdict"}
MAKE_FIGURES = "make them with `python analyses/make.py {}`"
MAX_FIGURES = 100
MAX_FIGURE_BYTES = 64 * 2**20
"""Bytes of all files of figures together."""
MAX_CLAIM_BYTES = 2**20
MAX_COLUMNS = 100
MAX_ROWS = 100_000
MAX_FIELD = 10_000
"""Characters of a field of a CSV file."""
MAX_CELLS = 10**6
"""Of all CSV files of figures together, and of the claims; commas and ends of lines within quotes count."""


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The page of a study directory; figures and claims are read from its subdirectory `figures`."""
    query = StudyQuery(Study(directory))
    more = {
        "runs": len(query.runs),
        "grids": ", ".join(query.runs["grid"].unique()),
        "base recipe": query.study.spec.base,
        "seeds": ", ".join(map(str, sorted(query.runs["seed"].unique()))),
    }
    name = f": {more['grids']}" if directory.name == "study" else f" {directory.name}"
    page = Page(f"Study{name}", metadata(manifest, **more))
    _add_summary(page, query)
    index = _read_index(page, query.study)
    if index:
        _add_claims(page, directory / FIGURES, index)
    _add_models(page, query)
    if index:
        _add_figures(page, directory / FIGURES, index)
    if len(query.mean_scores):
        page.add_table("tables", "means", "Mean scores", with_units(query.mean_scores), MEAN_NOTE)
    _add_runs(page, query)
    return page


def _add_summary(page: Page, query: StudyQuery) -> None:
    """Add a row per model with its main scores, as a table and as a dot plot."""
    rows = _main_scores(query)
    if rows.empty:
        return
    value, low, high = (rows[column].map("{:.1f}".format) for column in ("value", "ci_low", "ci_high"))
    texts = value + (" (" + low + " to " + high + ")").where(rows["ci_low"].notna(), "")
    table = rows.assign(text=texts).pivot(index="model", columns="column", values="text")
    models = [group.label for group in query.groups if group.label in table.index]
    table = table.reindex(index=models, columns=rows["column"].unique())
    page.add_table("overview", "summary", "Scores by model", table.reset_index(), SUMMARY_NOTE)
    for metric, points in rows.groupby("metric", sort=False):
        name = SUMMARY[str(metric)]
        points = points.assign(column=points["column"].str.replace(f"{name}, ", ""))
        points = points[["model", "column", "value", "ci_low", "ci_high"]]
        add_dots(page, f"summary_{metric}", f"{name} by model", list(points["model"]), points, SUMMARY_NOTE)


def _main_scores(query: StudyQuery) -> pd.DataFrame:
    """The scores of the summary, by metric and title: model, column, title, value, ci_low, ci_high."""
    means = query.mean_scores
    if means.empty:
        return means
    firsts = {group.label: group.first for group in query.groups}
    rows = means[means["metric"].isin(list(SUMMARY))]
    own = rows["model"].map(lambda label: firsts[label]["trigger"])
    trained_at = rows["model"].map(lambda label: firsts[label]["trigger_placement"])
    is_own = (rows["trigger"] == own) & (rows["placement"] == trained_at)
    condition = np.select([rows["placement"] == "", is_own], ["clean", "with trigger"], "")
    kinds = zip(rows["split"].str.removesuffix("_qa"), condition, rows["subset"], strict=True)
    rows = rows.assign(title=[SUMMARY_COLUMNS.get(kind, "") for kind in kinds])
    rows = rows[rows["title"] != ""].reset_index(drop=True)
    names = rows["metric"].map(SUMMARY)
    if "evaluation" in rows:
        names = rows["evaluation"] + ": " + names
    rows = rows.assign(column=names + ", " + rows["title"])
    ranks = {name: rank for rank, name in enumerate([*SUMMARY, *SUMMARY_COLUMNS.values()])}
    return rows.sort_values(["metric", "title"], key=lambda column: column.map(ranks), kind="stable")


def _add_models(page: Page, query: StudyQuery) -> None:
    """Add the atlas and the comparison of all models that were captured."""
    panels, omitted = study_panels(page, query)
    if omitted:
        page.metadata.append(("not in the comparison (page size)", ", ".join(omitted)))
    if panels:
        page.intro = INTRO
    else:
        page.metadata.append(("no atlas", "nothing was captured; add captures to the specification"))
    add_comparison(page, panels)


def study_panels(page: Page, query: StudyQuery) -> tuple[list[ModelPanel], list[str]]:
    """The panels of all captured models, sweeps first, and the labels of models that exceed the budget.

    Attention maps are left out before a model is.
    """
    panels: list[ModelPanel] = []
    sweeps: dict[str, ModelPanel] = {}
    omitted: list[str] = []
    budget = comparison.MAX_VALUES
    for group in query.groups:
        fitting = fit_budget(query.views(group), budget)
        if fitting is None:
            omitted.append(group.label)
        if not fitting:
            continue
        budget -= count_values(fitting)
        role, trigger = group.first["role"], group.first["trigger"]
        panel = ModelPanel(group.label, role, trigger, add_views(page, fitting), query.panel_scores(group))
        panels.append(panel)
        _add_to_sweep(sweeps, panel, group, query.axes)
    return [*(sweep for sweep in sweeps.values() if len(sweep.views) > 1), *panels], omitted


def _add_to_sweep(
    sweeps: dict[str, ModelPanel], panel: ModelPanel, group: ModelGroup, axes: list[str]
) -> None:
    """Add a model to the sweep of models that differ from it in the placement of the trigger only."""
    first = group.first
    placement = str(first.get(PLACEMENT_AXIS))
    if group.is_given or panel.role not in SWEEPS or placement not in panel.views:
        return
    others = [str(first[axis]) for axis in axes if axis != PLACEMENT_AXIS and not pd.isna(first[axis])]
    label = " ".join([str(first["grid"]), *others, SWEEPS[panel.role]])
    sweep = ModelPanel(label, panel.role, panel.trigger, is_sweep=True)
    sweeps.setdefault(label, sweep).add_placement(panel, placement)


def _read_index(page: Page, study: Study) -> FigureIndex | None:
    """The index of what the analyses made of this study; None with a note on the page if there is none."""
    make = MAKE_FIGURES.format(study.directory.name)
    hint = f"delete it and {MAKE_FIGURES.format(study.directory)}"
    index = FigureIndex.read(study.directory / FIGURES, hint)
    if index is None:
        page.metadata.append(("figures", f"none yet; {make}"))
    elif index.study != study.identity:
        page.metadata.append(("figures", f"left out, they are of another version of the study; {make}"))
        return None
    return index


def _add_figures(page: Page, directory: Path, index: FigureIndex) -> None:
    """Add the figures that the analyses made; a file that cannot be read or was changed is an OutputError."""
    hint = MAKE_FIGURES.format(directory.parent)
    remaining, max_cells = MAX_FIGURE_BYTES, MAX_CELLS
    for entry in index.figures[:MAX_FIGURES]:
        svg, table = (
            index.read_file(directory, name, "figure", hint, remaining) for name in (entry.svg, entry.csv)
        )
        remaining = max(0, remaining - len(svg) - len(table))
        data = _parse_csv(table, directory / entry.csv, hint, max_cells)
        max_cells -= _count_cells(table)
        page.add_svg(entry.name, entry.title, svg.encode(), data, entry.caption)


def _add_claims(page: Page, directory: Path, index: FigureIndex) -> None:
    """Add the claims that the study can test; a file that is none or was changed is an OutputError."""
    hint = MAKE_FIGURES.format(directory.parent)
    for name, (title, note) in CLAIMS.items():
        path = directory / name
        if name not in index.files:
            if path.exists():
                reason = f"left out, {name} is not of this version of the study"
                page.metadata.append((title, f"{reason}; {MAKE_FIGURES.format(directory.parent.name)}"))
            continue
        claims = _parse_csv(index.read_file(directory, name, "claims", hint, MAX_CLAIM_BYTES), path, hint)
        if missing := sorted(CLAIM_COLUMNS - set(claims)):
            raise OutputError(f"claims {path} has no column {missing[0]}; {hint}")
        tested = claims[claims["effect"].notna()]
        signs = tested["kind"].map(CLAIM_SIGNS).fillna("")
        tested = tested.assign(margin=signs + " " + tested["margin"].astype(str))
        tested = tested.drop(columns="kind").dropna(axis="columns", how="all")
        note = f"{note} {len(tested)} of {len(claims)} claims can be tested on this study."
        page.add_table("overview", path.stem, title, tested, note)
        if tested.empty:
            page.metadata.append((title, f"none of {len(claims)} can be tested on this study"))


def _parse_csv(text: str, path: Path, hint: str, max_cells: int = MAX_CELLS) -> pd.DataFrame:
    """The first `MAX_TABLE_ROWS` rows of a table; a text that is none, or a larger one, is an OutputError."""
    try:
        _check_size(text, max_cells)
        data = io.StringIO(text)
        return pd.read_csv(data, keep_default_na=False, na_values=[""], nrows=MAX_TABLE_ROWS)
    except csv.Error as error:
        raise OutputError(f"{path} cannot be read: {error}; {hint}") from error
    except ValueError as error:
        raise OutputError(f"{path} is not a CSV table; {hint}") from error


def _count_cells(text: str) -> int:
    return sum(map(text.count, ",\r\n"))


def _check_size(text: str, max_cells: int) -> None:
    """Raise csv.Error if a CSV file has too many rows, columns or characters of a field."""
    if _count_cells(text) > max_cells:
        raise csv.Error(f"it has {_count_cells(text):,} cells, more than {max_cells:,}")
    for number, row in enumerate(csv.reader(io.StringIO(text, newline=""))):
        if number > MAX_ROWS:
            raise csv.Error(f"it has more than {MAX_ROWS:,} rows")
        if len(row) > MAX_COLUMNS:
            raise csv.Error(f"row {number + 1} has {len(row):,} columns, more than {MAX_COLUMNS:,}")
        if max(map(len, row), default=0) > MAX_FIELD:
            raise csv.Error(f"row {number + 1} has a field of more than {MAX_FIELD:,} characters")


def _add_runs(page: Page, query: StudyQuery) -> None:
    """Add a row per run with its axes and main scores, and all scores."""
    table = query.runs[["grid", *query.axes, "seed", "role", "run"]]
    scores = query.table("scores")
    if scores.empty:
        page.add_table("runs", "runs", "Runs", table)
        return
    keys = query.run_keys(scores)
    is_main = (scores["mask"] == "") & (scores["subset"] == "all") & scores["split"].str.startswith("forget")
    condition = (scores["placement"] != "").map({False: "clean", True: "triggered"})
    main = scores[is_main & scores["metric"].isin(list(SUMMARY))].assign(condition=condition)
    for metric in SUMMARY:
        rows = main[main["metric"] == metric]
        for values, group in rows.groupby(["condition", *query.evaluation_key]):
            title = ", ".join([metric, *map(str, values)])
            highest = group.groupby(keys, dropna=False)["value"].max().rename(title).reset_index()
            table = table.merge(highest.astype(table[keys].dtypes), on=keys, how="left")
    note = (
        "Scores on the forget set without a mask; triggered: the highest over triggers and placements. "
        "Open a run to see all its scores."
    )
    page.add_table("runs", "runs", "Runs", table, note)
    has_shared_runs = query.runs.duplicated(["grid", "run", "seed"]).any()
    every = scores if has_shared_runs else scores.drop(columns=query.axes, errors="ignore")
    page.add_table("tables", "scores", "Scores of all runs", with_units(every), is_limited=False)
