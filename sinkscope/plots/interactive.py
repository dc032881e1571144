"""The pictures' interactive counterparts for a web page: the same data frames, panels and colors, in plotly."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.colors import to_hex
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from sinkscope.plots import frames
from sinkscope.plots.bars import LABELS, REFERENCES
from sinkscope.plots.comparison import Span
from sinkscope.plots.dot_plot import IN_A_ROW, limits, published_in
from sinkscope.plots.forget_recover_scatter import EDGES, X_AXES, Y_AXIS, zone_of
from sinkscope.plots.lines import MARKED, X_AXIS
from sinkscope.plots.style import DIVERGING, FRAME, METRICS, SPAN, ZONE, color

SYMBOLS = {"prefix": "circle", "infix": "square", "suffix": "triangle-up"}
OPEN = ("diamond-open", "triangle-up-open", "square-open")
LATER = 1001  # in the legend, behind what has plotly's usual rank of 1000
_WIDTH, _ROW = 130, 240  # characters of a caption's line, pixels of a row of panels


def zones(points: pd.DataFrame, caption: str) -> go.Figure:
    """As `zone.zones`."""
    panels = list(frames.groups(points, ["view", "metric"]))
    figure = canvas(
        1, len(panels), [METRICS[metric] for (_, metric), _ in panels], caption, shared_yaxes=True
    )
    told: set[str] = set()
    for column, ((view, _), here) in enumerate(panels, 1):
        left, right, bottom, top = zone_of(view, here["zone_x"].iloc[0], here["zone_y"].iloc[0])
        figure.add_shape(
            type="rect",
            x0=left,
            x1=right,
            y0=bottom,
            y1=top,
            fillcolor=ZONE,
            opacity=1,
            line_width=0,
            layer="below",
            row=1,
            col=column,
        )
        if view == "forget":
            line = {"color": "black", "width": 0.5, "dash": "dot"}
            figure.add_shape(
                type="line",
                x0=EDGES[0],
                x1=EDGES[1],
                y0=EDGES[0],
                y1=EDGES[1],
                line=line,
                opacity=1,
                row=1,
                col=column,
            )
        for row in frames.rows(here):
            mine, whole = row.model == "backdoored", row.subset == "all"
            name = (f"backdoored, {row.placement}" if mine else row.model) + ("" if whole else ", BE-unseen")
            shade = color(row.placement if mine else row.model)
            symbol = SYMBOLS[row.placement]
            marker = (
                {"color": shade, "symbol": symbol, "size": 8}
                if whole
                else {"color": shade, "symbol": f"{symbol}-open", "size": 14}
            )
            around = (
                {
                    "error_x": _error(row.x, row.x_low, row.x_high, shade),
                    "error_y": _error(row.y, row.y_low, row.y_high, shade),
                }
                if whole
                else {}
            )
            text = f"{name}<br>trigger as {row.placement}<br>x {row.x:.1f}, BE {row.y:.1f}<br>n = {row.y_n}, seeds {row.seeds}"
            add(
                figure,
                told,
                go.Scatter(
                    x=[row.x],
                    y=[row.y],
                    mode="markers",
                    marker=marker,
                    name=name,
                    hovertext=text,
                    hoverinfo="text",
                    **around,
                ),
                1,
                column,
            )
        figure.update_xaxes(title_text=X_AXES[view], range=EDGES, row=1, col=column)
        figure.update_yaxes(range=EDGES, row=1, col=column)
    figure.update_yaxes(title_text=Y_AXIS, row=1, col=1)
    return figure


def effectiveness(
    points: pd.DataFrame, floors: Mapping[str, float], ceilings: Mapping[str, float], caption: str
) -> go.Figure:
    """As `unlearning.effectiveness`."""
    metrics = list(points["metric"].unique())
    figure = canvas(1, len(metrics), [METRICS[metric] for metric in metrics], caption, shared_yaxes=True)
    told: set[str] = set()
    for column, metric in enumerate(metrics, 1):
        middle = (floors[metric] + ceilings[metric]) / 2
        zone = {"x0": EDGES[0], "x1": middle, "y0": middle, "y1": EDGES[1], "fillcolor": ZONE}
        figure.add_shape(type="rect", **zone, line_width=0, layer="below", row=1, col=column)
        ends = {"x0": EDGES[0], "y0": EDGES[0], "x1": EDGES[1], "y1": EDGES[1]}
        figure.add_shape(
            type="line", **ends, line={"color": "black", "width": 0.5, "dash": "dot"}, row=1, col=column
        )
        for row in frames.rows(points[points["metric"] == metric]):
            shade = color(row.model)
            around = {
                "error_x": _error(row.ue, row.ue_low, row.ue_high, shade),
                "error_y": _error(row.be, row.be_low, row.be_high, shade),
            }
            text = f"{row.model}<br>UE {row.ue:.1f}, BE {row.be:.1f}"
            mark = go.Scatter(
                x=[row.ue],
                y=[row.be],
                mode="markers",
                marker={"color": shade, "size": 9},
                name=row.model,
                hovertext=text,
                hoverinfo="text",
                **around,
            )
            add(figure, told, mark, 1, column)
    figure.update_xaxes(title_text=X_AXES["forget"], range=EDGES)
    figure.update_yaxes(range=EDGES)
    figure.update_yaxes(title_text=Y_AXIS, row=1, col=1)
    return figure


def curves(
    data: pd.DataFrame, shades: Mapping[str, str], caption: str, within: tuple[float, float] | None
) -> go.Figure:
    """As `curves.curves`."""
    rows, columns = list(data["row"].unique()), list(data["column"].unique())
    figure = canvas(len(rows), len(columns), columns, caption, shared_xaxes=True, shared_yaxes=True)
    told: set[str] = set()
    for (row, column), here in frames.groups(data, ["row", "column"]):
        place = rows.index(row) + 1, columns.index(column) + 1
        if here["trigger_start"].notna().any():
            ends = {"x0": here["trigger_start"].min() - 0.5, "x1": here["trigger_stop"].max() - 0.5}
            figure.add_vrect(
                **ends,
                fillcolor=SPAN,
                opacity=1,
                line_width=0,
                layer="below",
                exclude_empty_subplots=False,
                row=place[0],
                col=place[1],
            )
        drawn = [(line, here[here["line"] == line]) for line in shades if line in set(here["line"])]
        for line, points in drawn:
            known, shade = points[points["ci_low"].notna()], color(shades[line])
            if len(known):
                around = {
                    "x": [*known["position"], *known["position"][::-1]],
                    "y": [*known["ci_high"], *known["ci_low"][::-1]],
                }
                band = go.Scatter(
                    **around,
                    fill="toself",
                    fillcolor=shade,
                    opacity=0.2,
                    line_width=0,
                    mode="lines",
                    hoverinfo="skip",
                    showlegend=False,
                )
                figure.add_trace(band, row=place[0], col=place[1])
        for line, points in drawn:
            shade = color(shades[line])
            curve = go.Scatter(
                x=points["position"], y=points["value"], mode="lines", line={"color": shade}, name=line
            )
            if here["position"].nunique() <= MARKED:
                fill = ["white" if hollow else shade for hollow in points["hollow"]]
                curve.update(
                    mode="lines+markers",
                    marker={"color": fill, "line": {"color": shade, "width": 1.5}, "size": 6},
                )
            add(figure, told, curve, *place)
    for number, row in enumerate(rows, 1):
        figure.update_yaxes(title_text=row.replace("\n", "<br>"), row=number, col=1)
    figure.update_xaxes(title_text=X_AXIS, row=len(rows))
    if within:
        figure.update_yaxes(range=within)
    return figure


def bars(data: pd.DataFrame, caption: str, about: str, names: dict[str, str], xlabel: str) -> go.Figure:
    """As `bars.bars`."""
    data = data.assign(group=data["group"].str.replace("\n", "<br>"))
    scores, metrics = list(data["score"].unique()), list(data["metric"].unique())
    figure = canvas(
        len(scores),
        len(metrics),
        [METRICS[metric] for metric in metrics],
        caption,
        shared_xaxes=True,
        shared_yaxes=True,
    )
    told: set[str] = set()
    for (score, metric), here in frames.groups(data, ["score", "metric"]):
        place = scores.index(score) + 1, metrics.index(metric) + 1
        references, mine = (
            here[here["model"].isin(REFERENCES)],
            here[(here["model"] == "backdoored") & (here["subset"] == "all")],
        )
        for series, name in names.items():
            group = mine[mine["series"] == series]
            if group.empty:
                continue
            texts = [
                f"{about}{name}: {row.value:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f})<br>n = {row.n}, seeds {row.seeds}"
                for row in frames.rows(group)
            ]
            hover = {"hovertext": texts, "hoverinfo": "text"}
            bar = go.Bar(
                x=group["group"],
                y=group["value"],
                error_y=errors(group),
                marker_color=color(series),
                name=f"{about}{name}",
                **hover,
            )
            add(figure, told, bar.update(offsetgroup=series), *place)
            for model in REFERENCES:
                marks = references[(references["model"] == model) & (references["series"] == series)]
                at = {"x": marks["group"], "y": marks["value"], "offsetgroup": series, "legendrank": LATER}
                tick = {"symbol": "line-ew", "size": 18, "line": {"color": color(model), "width": 2}}
                add(figure, told, go.Scatter(**at, mode="markers", marker=tick, name=model), *place)
            unseen = here[(here["subset"] == "unseen") & (here["series"] == series)]
            ring = {"color": "white", "size": 7, "line": {"color": "black", "width": 1}}
            if len(unseen):
                at = {"x": unseen["group"], "y": unseen["value"], "offsetgroup": series, "legendrank": LATER}
                rings = go.Scatter(**at, mode="markers", marker=ring, name="on items not poisoned")
                add(figure, told, rings, *place)
        figure.update_yaxes(
            title_text=LABELS[score] if place[1] == 1 else None, range=(0, 105), row=place[0], col=place[1]
        )
    figure.update_xaxes(type="category")
    figure.update_xaxes(title_text=xlabel, row=len(scores))
    figure.update_layout(scattermode="group", scattergap=0.2, bargap=0.2)
    return figure


def dots(data: pd.DataFrame, rows: Sequence[str], caption: str, shade: str | None = None) -> go.Figure:
    """As `dots.dots`."""
    columns = list(data["column"].unique())
    across = min(len(columns), IN_A_ROW)
    figure = canvas(-(-len(columns) // across), across, columns, caption, shared_yaxes=True)
    told: set[str] = set()
    for number, column in enumerate(columns):
        place, here = (number // across + 1, number % across + 1), data[data["column"] == column]
        marker = {"color": [color(shade or row) for row in here["row"]], "size": 8}
        error = {"error_x": errors(here)}
        add(
            figure,
            told,
            go.Scatter(
                x=here["value"],
                y=here["row"],
                mode="markers",
                marker=marker,
                name="here, 95 % interval",
                **error,
            ),
            *place,
        )
        for symbol, name in zip(OPEN, published_in(data), strict=False):
            there = here[here[name].notna()]
            open_marker = {"color": "black", "symbol": symbol, "size": 8}
            add(
                figure,
                told,
                go.Scatter(x=there[name], y=there["row"], mode="markers", marker=open_marker, name=name),
                *place,
            )
        figure.update_xaxes(range=limits(here), row=place[0], col=place[1])
        figure.update_yaxes(categoryorder="array", categoryarray=list(rows)[::-1], row=place[0], col=place[1])
    return figure


def difference_maps(
    maps: Mapping[str, tuple[Float[np.ndarray, "bin bin"], Span]], bin_size: int, caption: str, columns: int
) -> go.Figure:
    """As `compare.difference_maps`."""
    rows = -(-len(maps) // columns)
    figure = canvas(rows, columns, list(maps), caption, shared_xaxes=True, shared_yaxes=True)
    limit = max(float(np.nanmax(np.abs(values))) for values, _ in maps.values()) or 1.0
    for number, (values, span) in enumerate(maps.values()):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        centres = (np.arange(len(values)) + 0.5) * bin_size
        hover = "query %{y}, key %{x}: %{z:.3f}<extra></extra>"
        figure.add_trace(
            go.Heatmap(z=values, x=centres, y=centres, coloraxis="coloraxis", hovertemplate=hover), **place
        )
        if span:
            figure.add_vrect(
                x0=span[0],
                x1=span[1],
                fillcolor="rgba(0,0,0,0)",
                opacity=1,
                line_color=FRAME,
                line_width=1.5,
                **place,
            )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="attended position", row=rows)
    figure.update_yaxes(title_text="query position", col=1)
    figure.update_layout(
        coloraxis={
            "colorscale": diverging_scale(),
            "cmin": -limit,
            "cmax": limit,
            "colorbar_title": "triggered − clean",
        }
    )
    return figure


def diverging_scale() -> list[list[float | str]]:
    """The house's colors of differences, for plotly."""
    steps = matplotlib.colormaps[DIVERGING](np.linspace(0, 1, 11))
    return [[step / 10, to_hex(shade)] for step, shade in enumerate(steps)]


def canvas(rows: int, columns: int, titles: Sequence[str], caption: str, **more: Any) -> go.Figure:
    """Empty panels in the house style; `more` is what `make_subplots` should know besides."""
    gaps = {"vertical_spacing": 0.25 / rows, "horizontal_spacing": 0.15 / columns}
    figure = make_subplots(rows, columns, subplot_titles=titles, **(gaps | more))
    lines = textwrap.wrap(caption, _WIDTH)
    top = 30 + 16 * len(lines)
    figure.update_layout(
        template="simple_white",
        font={"size": 11, "family": "DejaVu Sans, Arial, sans-serif"},
        title={
            "text": "<br>".join(lines),
            "font_size": 12,
            "x": 0,
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 16, "l": 10},
        },
        height=_ROW * rows + top + 70,
        margin={"t": top + 20, "b": 40, "l": 60, "r": 20},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    figure.update_annotations(font_size=12)
    return figure


def add(figure: go.Figure, told: set[str], trace: go.Scatter | go.Bar, row: int, column: int) -> None:
    """Add a trace whose name stands in the legend once."""
    trace.update(legendgroup=trace.name, showlegend=trace.name not in told)
    told.add(trace.name)
    figure.add_trace(trace, row=row, col=column)


def _error(value: float, low: float, high: float, shade: str) -> dict[str, object]:
    return errors(pd.DataFrame({"value": [value], "ci_low": [low], "ci_high": [high]}), shade)


def errors(data: pd.DataFrame, shade: str = "black") -> dict[str, object]:
    """The intervals of points as plotly's errors."""
    up, down = (data["ci_high"] - data["value"]).clip(lower=0), (data["value"] - data["ci_low"]).clip(lower=0)
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "thickness": 1,
        "width": 2,
        "color": shade,
    }
