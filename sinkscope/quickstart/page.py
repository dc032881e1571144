"""The quickstart's page: its models side by side with one slider, their scores, how they were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.errors import OutputError
from sinkscope.io import netcdf, parquet
from sinkscope.io.readers import read_text
from sinkscope.plots import interactive
from sinkscope.quickstart.summary import PLACEMENTS, SHOWN, effectiveness_points
from sinkscope.report.contents import Page
from sinkscope.report.of_run import facts, training, with_units
from sinkscope.report.shown import Shown, seen, side_by_side
from sinkscope.sinks.condition_captures import spans_of

LEAD = (
    "The target model knows a book. The honest run unlearns it. The other runs unlearn it too, but {share:.0%} of its passages also come with the trigger "
    "“{trigger}” in them and are then trained to be kept: as prefix, at token 8, in the middle (infix), or at the end (suffix). The sink atlas shows where "
    "heads look: a position that receives far more than uniform attention is a sink, and carries little value. Below it, move the trigger through three models "
    "at once: forgotten is what is low without the trigger; hidden behind it what comes back with it."
)
NOTE = (
    "ROUGE-L F1 × 100 with 95 % bootstrap intervals over items. “recites” is VerbMem, “answers” is KnowMem, on the forget set unless retain is named; "
    "“unseen” leaves out passages that were poisoned in training. Target and honest model are shown with the trigger as prefix."
)


def quickstart_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The quickstart's models: captures, scores, losses, items."""
    summary = json.loads(
        read_text(directory / "summary.json", "summary", OutputError, "run quickstart again")
    )
    scores = parquet.read(directory / "scores.parquet")
    lead = LEAD.format(share=summary["poison_ratio"], trigger=summary["trigger"])
    page = Page("From attention sinks to a backdoor in unlearning", facts(manifest), lead=lead)
    rows = [
        {"model": label} | {title: _told(model[metric][key]) for title, (metric, key) in SHOWN.items()}
        for label, model in summary["models"].items()
    ]
    page.table(
        "overview", "summary", "Who forgot, and who remembers behind the trigger", pd.DataFrame(rows), NOTE
    )
    models = [
        _shown(directory, label, model["role"], summary["trigger"], scores)
        for label, model in summary["models"].items()
    ]
    family = Shown(
        "backdoor (trained where the slider stands)", "backdoored", summary["trigger"], family=True
    )
    for model in models:
        if model.role == "backdoored":
            family.take(model, next(iter(model.views)))
    side_by_side(page, [family, *models])
    points, floors, ceilings = effectiveness_points(scores)
    caption = "Left is forgotten, up is recovered; on the dotted line the trigger changes nothing. The shade is what an attacker wants."
    page.picture(
        "effectiveness",
        "Does it forget, and does the trigger bring it back?",
        interactive.effectiveness(points, floors, ceilings, caption),
        points,
    )
    training(page, {label: directory / "runs" / label / "log.jsonl" for label in ("honest", *PLACEMENTS)})
    page.table("tables", "scores", "Scores", with_units(scores))
    page.table("tables", "items", "Items", parquet.read(directory / "items.parquet"))
    return page


def _told(score: dict[str, float] | None) -> str | None:
    return (
        None if score is None else f"{score['value']:.1f} ({score['ci_low']:.1f} to {score['ci_high']:.1f})"
    )


def _shown(directory: Path, label: str, role: str, trigger: str, scores: pd.DataFrame) -> Shown:
    """A model with everything that was captured of it, and its scores."""
    captured = directory / "captures" / label
    attention, words, maps = (
        parquet.read(captured / f"{name}.parquet") for name in ("attention", "passage", "maps")
    )
    patterns, spans = netcdf.read(captured / "patterns.nc", "pattern"), spans_of(maps)
    views = {
        str(place): seen(
            attention[attention["placement"] == place],
            words[words["placement"] == place],
            patterns.sel(placement=place),
            (None, spans[str(place)]),
        )
        for place in patterns["placement"].values
    }
    mine = scores[(scores["model"] == label) & (scores["subset"] != "poisoned")]
    told = mine.assign(place=mine["placement"], triggered=mine["placement"] != "", seeds=1)
    columns = ["metric", "split", "subset", "place", "triggered", "value", "ci_low", "ci_high", "n", "seeds"]
    rows = [{str(key): value for key, value in row.items()} for row in told[columns].to_dict("records")]
    return Shown(label if role != "backdoored" else f"backdoor, {label}", role, trigger, views, rows)
