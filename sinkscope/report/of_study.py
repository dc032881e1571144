"""The page of a study: claims, sinks, models side by side, pictures, runs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from sinkscope import figures
from sinkscope.errors import OutputError, StudyError, first_line
from sinkscope.report.contents import Page
from sinkscope.report.of_run import escaped, facts, with_units
from sinkscope.report.shown import side_by_side
from sinkscope.report.study_views import asked_apart, axes_of, mean_scores, point_keys, shown_models
from sinkscope.studies.claims import judge
from sinkscope.studies.claims_table import NOTE, SIGNS
from sinkscope.studies.paper_claims import paper_claims
from sinkscope.studies.study import OTHERWISE, Study


def study_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Everything that a study measured, as far as there is room."""
    study = Study(directory)
    runs = study.table("runs")
    seeds = ", ".join(map(str, sorted(runs["seed"].unique())))
    page = Page(
        f"Study {directory.name}",
        facts(
            manifest,
            runs=len(runs),
            grids=", ".join(runs["grid"].unique()),
            base_recipe=study.spec.base,
            seeds=seeds,
        ),
    )
    _claims(page, study)
    note = "Means over seeds with 95 % t intervals (of one seed: over items), without a mask."
    page.table("overview", "means", "Scores over seeds", mean_scores(study), note)
    models, left = shown_models(study)
    if left:
        page.facts.append(("no room for", ", ".join(left)))
    if not models:
        page.facts.append(("no atlas", "nothing was captured; ask for captures in the specification"))
    side_by_side(page, models)
    _draw(page, study)
    _runs(page, study)
    return page


def _claims(page: Page, study: Study) -> None:
    """The claims that the study can tell something of."""
    claims = judge(study, paper_claims())
    told = claims[claims["effect"].notna()]
    margins = [
        f"{SIGNS[str(kind)]} {margin:g}" for kind, margin in zip(told["kind"], told["margin"], strict=True)
    ]
    told = (
        told.assign(margin=margins).drop(columns="kind").replace("", None).dropna(axis="columns", how="all")
    )
    if told.empty:
        page.facts.append(
            ("claims of the paper", f"none of {len(claims)} can be measured here: {claims['reason'].iloc[0]}")
        )
    page.table(
        "overview",
        "claims",
        "Claims of the paper",
        told,
        f"{NOTE} {len(told)} of {len(claims)} could be measured here.",
    )


def _draw(page: Page, study: Study) -> None:
    """Every picture that the study has the runs for. One that cannot be drawn is named, and takes no other with it."""
    for name, picture in figures.PICTURES.items():
        if any(grid not in study.spec.grids for grid in picture.needs):
            continue
        about = import_module(f"sinkscope.figures.{name}").__doc__ or name
        try:
            data = picture.frame(study)
            twin = picture.twin(data.map(lambda value: escaped(value) if isinstance(value, str) else value))
        except OutputError:
            raise
        except OTHERWISE as error:
            page.facts.append((f"not drawn: {name}", first_line(error)))
            continue
        page.picture(name, about.strip().split("\n")[0], twin, data)


def _runs(page: Page, study: Study) -> None:
    """A row per run with its axes and main scores; and all scores."""
    runs = study.table("runs")
    axes = axes_of(runs)
    table = runs[["grid", *axes, "seed", "role", "run"]]
    try:
        scores = study.table("scores")
    except StudyError:
        page.table("runs", "runs", "Runs", table)
        return
    point = point_keys(runs, scores)
    whole = scores[
        (scores["mask"] == "") & (scores["subset"] == "all") & scores["split"].str.startswith("forget")
    ]
    apart = asked_apart(study)
    for metric in ("verbmem", "knowmem", "choice"):
        for label, triggered in (("clean", False), ("triggered", True)):
            mine = whole[(whole["metric"] == metric) & ((whole["placement"] != "") == triggered)]
            for name, each in mine.groupby(apart[0]) if apart else [("", mine)]:
                if len(each):
                    title = ", ".join(filter(None, (metric, label, str(name))))
                    best = (
                        each.groupby(point, dropna=False)["value"]
                        .max()
                        .rename(title)
                        .reset_index()
                        .astype(table[point].dtypes)
                    )
                    table = table.merge(best, on=point, how="left")
    note = "Scores on the forget set without a mask; triggered: the highest over triggers and placements that were tried. Open a run to see all its scores."
    page.table("runs", "runs", "Runs", table, note)
    shared = runs.duplicated(
        ["grid", "run", "seed"]
    ).any()  # only then is a run not enough to find its scores
    told = with_units(scores if shared else scores.drop(columns=axes, errors="ignore"))
    page.table("tables", "scores", "Scores of all runs", told, rows=None)
