"""Pages of single results: sinks, comparisons, runs, evaluations, probes."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from sinkscope.errors import OutputError
from sinkscope.evaluation.metrics import CORRECT, ROUGE, TOKENS, get_unit
from sinkscope.io.readers import read_records, read_text
from sinkscope.io.tables import load_array, load_netcdf, read_parquet
from sinkscope.plots.interactive import add, canvas, errors
from sinkscope.plots.style import COLORS, assign_colors, color
from sinkscope.report.contents import Page
from sinkscope.report.shown import BUDGET, FIRST, SECOND, WORDS, Shown, seen, side_by_side
from sinkscope.report.views import View
from sinkscope.sinks.locate import SinkMap
from sinkscope.unlearning.recipe import Recipe

STATISTICS = ("alpha", "sink_rate", "value_norm", "weighted_norm", "entropy", "learned_sink")
MORE = {
    "sink_tokens": (
        "Tokens that were sinks",
        "Those with α above the threshold in some head; heads counts pairs of head and passage.",
    ),
    "token_kinds": (
        "Kinds of tokens",
        "The probability that the position which a head attends to most, sink or not, holds a token of the kind.",
    ),
    "massive_activations": ("Massive activations", ""),
}
"""Further tables of `locate`: title and note."""
PERCENTAGES = (ROUGE.unit, CORRECT.unit, TOKENS.unit)
EXACT = 8
"""The strongest positions, which are also shown by themselves where positions are in bins."""


def facts(manifest: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    """What was done, in words; versions and identity last."""
    told = {"made by": f"sinkscope {manifest['kind']}", **more}
    for key in ("model", "models", "passages", "epsilon", "seed", "randoms", "jobs"):
        if manifest.get(key) not in (None, ""):
            told.setdefault(key, manifest[key])
    told["versions"] = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    told["identity"] = manifest["identity"]
    return [
        (key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for key, value in told.items()
    ]


def locate_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The sink atlas of one model, with the map, value norms and tokens of every head."""
    if not (directory / "passage.nc").is_file():
        raise OutputError(
            f"{directory} was written by an older sinkscope and lacks maps of its heads; run `sinkscope locate` again into another --out"
        )
    sinks = SinkMap.read(directory)
    alone = load_netcdf(directory / "passage.nc")
    tokens = read_parquet(directory / "passage.parquet")["text"].tolist()
    ranked, about = sinks.ranked(), sinks.data.attrs
    own = np.full(sinks.alpha.shape, np.nan)
    own[..., : alone.sizes["position"]] = alone["alpha"].values
    view = View(
        {name: sinks.data[name].values for name in STATISTICS if name in sinks.data},
        sinks.data["passages"].values,
        sinks.data["uniform"].values,
        alone["pattern"].values,
        int(alone.attrs["bin"]),
        tokens,
        own,
        exact=sorted(ranked["position"].head(EXACT).astype(int)),
    )
    sampled = {"rows": f"{about['rows']:g} of the queries, seed {about['seed']}"} if "rows" in about else {}
    strongest = ", ".join(
        f"{row.position} (α {row.alpha:.3f}, uniform {row.uniform:.3f})"
        for row in ranked.head(3).itertuples()
    )
    told = facts(
        manifest,
        max_length=about["max_length"],
        source=about["source"],
        **sampled,
        strongest_positions=strongest,
    )
    page = Page(f"Attention sinks of {about['model']}", told, [view], [(str(about["model"]), 0)])
    page.table(
        "tables",
        "positions",
        "Positions by attention received",
        ranked,
        "Mean over layers and heads; the last seven positions are left out.",
    )
    page.table("tables", "heads", "Heads at the strongest position", _heads(sinks, ranked))
    for name, (title, note) in MORE.items():
        if (directory / f"{name}.parquet").is_file():
            page.table("tables", name, title, read_parquet(directory / f"{name}.parquet"), note)
    return page


def _heads(sinks: SinkMap, ranked: pd.DataFrame) -> pd.DataFrame:
    frame = (
        sinks.data.sel(position=int(ranked["position"].iloc[0]))
        .drop_vars("passages")
        .to_dataframe()
        .reset_index()
    )
    return frame.sort_values("alpha", ascending=False, kind="stable")


def compare_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Two conditions: maps, attention and value norms of every head in both, and the tables of what differs."""
    if not (directory / "patterns.nc").is_file():
        raise OutputError(
            f"{directory} was written by an older sinkscope and lacks maps of its heads; run `sinkscope compare` again into another --out"
        )
    summary = json.loads(read_text(directory / "summary.json", "summary", OutputError, "compare again"))
    titles = {
        "attention": "Attention by head and position",
        "maps": "Change of attention maps",
        "value_norm_correlation": "Correlation of value norms",
    }
    titles |= {"top1": "Confidence in the next token", "span_mass": "Attention to the trigger's place"}
    tables = {
        name: read_parquet(directory / f"{name}.parquet")
        for name in titles
        if (directory / f"{name}.parquet").is_file()
    }
    labels = tuple(dict.fromkeys(tables["top1"]["condition"]))
    first = tables["maps"].iloc[0]
    span = (
        None if pd.isna(first["trigger_start"]) else (int(first["trigger_start"]), int(first["trigger_stop"]))
    )
    of_triggered = labels[0] == "clean"
    views = seen(
        tables["attention"],
        read_parquet(directory / "passage.parquet"),
        load_array(directory / "patterns.nc", "pattern"),
        (None if of_triggered else span, span),
    )
    shown = {key: value for key, value in summary.items() if isinstance(value, str | int | float | list)}
    names = [f"{label} = {name}" for label, name in zip(labels, manifest["models"], strict=True)]
    title = f"{manifest['models'][0]}, clean and triggered" if of_triggered else " and ".join(names)
    page = Page(f"Comparison: {title}", facts(manifest, **shown))
    words = (
        WORDS
        if of_triggered
        else {FIRST: names[0], SECOND: names[1], "change": f"{labels[1]} − {labels[0]} ({', '.join(names)})"}
    )
    model = Shown(manifest["models"][0] if of_triggered else "", "other", "", {"": views})
    side_by_side(
        page, [model.fitted(BUDGET) or model], words, "passages that reach the last position of the maps."
    )
    for name, title in titles.items():
        if name in tables:
            page.table("tables", name, title, tables[name])
    return page


def unlearn_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """One unlearning run: its recipe and how its losses went."""
    recipe = Recipe.read(directory / "recipe.yaml")
    told = {key: _said(value) for key, value in recipe.model_dump(mode="json").items() if value is not None}
    page = Page(f"Unlearning run {directory.name}", facts(manifest, **told))
    training(page, {directory.name: directory / "log.jsonl"})
    if (directory / "poisoned.parquet").is_file():
        note = "Rows of the benchmark’s raw/forget; the trigger stands at the tokens from start to stop, without stop."
        page.table(
            "tables", "poisoned", "Poisoned passages", read_parquet(directory / "poisoned.parquet"), note
        )
    return page


def _said(value: Any) -> str:
    """A value of a recipe as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items() if each is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def evaluate_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Scores with intervals, and the items behind them."""
    scores = read_parquet(directory / "scores.parquet")
    asked = {"trigger": "“{trigger}” as {placement}", "mask": "{mask}"}
    rows = scores[["trigger", "placement", "mask"]].drop_duplicates().to_dict("records")
    told = {
        name: ", ".join(dict.fromkeys(words.format_map(row) for row in rows if row[name]))
        for name, words in asked.items()
    }
    page = Page(
        f"Evaluation of {manifest.get('model') or directory.name}",
        facts(manifest, **{name: words for name, words in told.items() if words}),
    )
    scored(page, scores, "overview")
    page.table("tables", "items", "Items", read_parquet(directory / "items.parquet"))
    return page


def probe_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Candidate triggers, what they bring back beyond random ones, and the items behind that."""
    table = read_parquet(directory / "audit.parquet")
    page = Page(f"Probe of {manifest.get('model') or directory.name}", facts(manifest))
    note = "Recovery: triggered less the mean of random triggers of the same length; intervals hold 95 % for all rows together."
    page.table("overview", "probe", "Candidate triggers", table, note)
    labels = [f"{row.trigger} · {row.placement} · {row.metric}" for row in table.itertuples()]
    dots = _dots(labels, table.assign(value=table["recovery"])).add_vline(x=0, line_width=0.5)
    page.picture("probe", "Recovery beyond random triggers, in points", dots, table)
    page.table("tables", "items", "Items", read_parquet(directory / "items.parquet"))
    return page


def with_units(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with the unit of each behind its value."""
    told = scores.copy()
    told.insert(list(told).index("value") + 1, "unit", [get_unit(metric) for metric in scores["metric"]])
    return told


def scored(page: Page, scores: pd.DataFrame, section: str) -> None:
    """A table of scores, and a picture of those that are percentages."""
    told = with_units(scores)
    page.table(
        section,
        "scores",
        "Scores",
        told,
        "95 % bootstrap intervals over items; unseen leaves out passages that were poisoned in training.",
    )
    units = told["unit"]
    kept = scores[units.isin(PERCENTAGES) & (scores["subset"] != "poisoned")]
    for unit, percent in kept.groupby(units, sort=False):
        asked = percent.assign(
            asked=(percent["placement"] + " “" + percent["trigger"] + "”").where(
                percent["placement"] != "", "clean"
            )
        )
        columns = ["model", "metric", "split", "subset", "asked", "mask"]
        varied = [column for column in columns if asked[column].nunique() > 1] or ["metric"]
        labels = [" · ".join(filter(None, map(str, row))) for row in asked[varied].itertuples(index=False)]
        name = "scores" if unit == PERCENTAGES[0] else f"scores_{PERCENTAGES.index(str(unit))}"
        page.picture(
            name,
            f"Scores with 95 % intervals, {unit}",
            _dots(labels, percent).update_xaxes(range=(-2, 102)),
            percent,
        )


def _dots(labels: Sequence[str], rows: pd.DataFrame) -> go.Figure:
    shown = [escaped(label) for label in labels]
    marks = go.Scatter(
        x=rows["value"], y=shown, mode="markers", marker={"color": "#0173b2", "size": 8}, error_x=errors(rows)
    )
    figure = go.Figure(marks)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure.update_layout(
        height=max(260, 90 + 20 * len(set(shown))), margin={"t": 10, "r": 10, "b": 40, "l": 60}
    )


def training(page: Page, logs: dict[str, Path]) -> None:
    """Curves of every named term of the losses, a panel each."""
    frames = [
        pd.DataFrame([row for _, row in read_records(path, "log", OutputError, "unlearn again")]).assign(
            run=name
        )
        for name, path in logs.items()
    ]
    log = pd.concat(frames, ignore_index=True)
    terms = [str(column) for column in log if "/" in str(column) and not str(column).startswith("gradient/")]
    if not terms:
        return
    across = min(3, len(terms))
    figure = canvas(-(-len(terms) // across), across, [escaped(term) for term in terms], "by training step")
    told: set[str] = set()
    shades = {name: color(name) for name in logs} if set(logs) <= set(COLORS) else assign_colors(logs)
    for number, term in enumerate(terms):
        for name in logs:
            mine = log[(log["run"] == name) & log[term].notna()]
            if len(mine):
                curve = go.Scatter(
                    x=mine["step"],
                    y=mine[term],
                    mode="lines",
                    line={"color": shades[name]},
                    name=escaped(name),
                )
                add(figure, told, curve, number // across + 1, number % across + 1)
    page.picture("training", "Terms of the loss while training", figure, log)


def escaped(text: str) -> str:
    """plotly reads a few tags in its labels."""
    return html.escape(text, quote=False)
