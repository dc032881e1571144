"""Interactive counterparts of the pictures beyond the paper: heatmaps, sinks and the backdoor, regression, variations, across corpora."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from plotly import graph_objects as go

from sinkscope.plots import across as bars
from sinkscope.plots import frames, link
from sinkscope.plots import regression as lines
from sinkscope.plots import variations as dots
from sinkscope.plots.heatmap import ALPHA, labels_of
from sinkscope.plots.interactive import add, canvas, errors
from sinkscope.plots.style import MATCH, SEQUENTIAL, SHADE, assign_colors, color

ROW = 14  # more pixels for each row of text
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")


def heatmaps(
    data: pd.DataFrame, caption: str, ylabel: str, *, columns: int, strips: pd.DataFrame | None = None
) -> go.Figure:
    """As `heat.heatmaps`."""
    names, parts = list(data["panel"].unique()), 1 if strips is None else 2
    down = -(-len(names) // columns)
    titles = []
    for row in range(down):
        mine = [name.replace("\n", "<br>") for name in names[row * columns : (row + 1) * columns]]
        titles += [*mine, *[""] * (columns * parts - len(mine))]
    heights = [data.groupby("panel")["y"].nunique().max(), 1][:parts] * down
    figure = canvas(
        down * parts, columns, titles, caption, row_heights=heights, vertical_spacing=0.42 / (down * parts)
    )
    for number, name in enumerate(names):
        row, column = number // columns * parts + 1, number % columns + 1
        here, under = data[data["panel"] == name], None if strips is None else strips[strips["panel"] == name]
        xs, ys = ([label.replace("\n", "<br>") for label in labels] for labels in labels_of(here, under))
        _heat(figure, here, xs, ys, "coloraxis", ".0f", row, column)
        for cell in frames.rows(here[here["outlined"]]):
            x, y = xs.index(cell.x.replace("\n", "<br>")), ys.index(cell.y.replace("\n", "<br>"))
            ends = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
            figure.add_shape(
                type="rect", **ends, line={"color": MATCH, "width": 2}, opacity=1, row=row, col=column
            )
        if under is not None:
            _heat(figure, under.assign(y=ALPHA), xs, [ALPHA], "coloraxis2", ".2f", row + 1, column)
        figure.update_xaxes(title_text=here["xlabel"].iloc[0], row=row + parts - 1, col=column)
        figure.update_yaxes(title_text=ylabel if column == 1 else None, row=row, col=column)
    figure.update_layout(coloraxis=_scale(SEQUENTIAL, 100, "score", 0.75))
    if strips is not None:
        figure.update_layout(coloraxis2=_scale(SHADE, float(strips["value"].max()), ALPHA, 0.25))
    return figure


def sink_link(data: pd.DataFrame, caption: str) -> go.Figure:
    """As `link.sink_link`."""
    names = {position: name.replace("\n", "<br>") for position, name in link.position_names(data).items()}
    layers = sorted(data[data["quantity"] == "sink"]["layer"].unique(), key=int)
    figure = canvas(3, 1, list(link.MAPS.values()), caption, shared_xaxes=True, row_heights=[1, 1, 2])
    for row, (quantity, axis) in enumerate(zip(link.MAPS, ("coloraxis", "coloraxis2"), strict=True), 1):
        here = data[data["quantity"] == quantity]
        _heat(
            figure,
            here.assign(x=here["position"].map(names), y=here["layer"]),
            list(names.values()),
            layers,
            axis,
            ".2f",
            row,
            1,
        )
        figure.update_layout(
            {axis: _scale(SHADE, float(here["value"].max()), ALPHA, 0.85 if row == 1 else 0.5)}
        )
        figure.update_yaxes(title_text="layer", row=row, col=1)
    places, told = list(names), set[str]()
    for quantity, known in link.LINES.items():
        here = data[data["quantity"] == quantity]
        at, shade, main = (
            [places.index(position) for position in here["position"]],
            color(known),
            quantity == "BE",
        )
        line = go.Scatter(
            x=at,
            y=here["value"],
            mode="lines",
            line={"color": shade, "dash": "solid" if main else "dash"},
            name=link.NAMES[quantity],
        )
        if main:
            fill = np.where(here["evaluated"] != link.BEYOND, shade, "white")
            texts = [
                f"trained at {row.placement}, asked at {row.evaluated}: {row.value:.1f}<br>n = {row.n}, seeds {row.seeds}"
                for row in frames.rows(here)
            ]
            marker = {"color": list(fill), "size": 8, "line": {"color": shade, "width": 1.5}}
            line.update(
                mode="lines+markers",
                marker=marker,
                error_y=errors(here, shade),
                hovertext=texts,
                hoverinfo="text",
            )
        add(figure, told, line, 3, 1)
    figure.update_xaxes(
        tickvals=list(range(len(names))), ticktext=list(names.values()), title_text=link.X_AXIS, row=3
    )
    figure.update_yaxes(title_text=link.Y_AXIS, range=(-4, 104), row=3, col=1)
    return figure


def regression(data: pd.DataFrame, names: Mapping[str, str], group: str, caption: str) -> go.Figure:
    """As `regression.regression`."""
    figure, told = canvas(1, 2, lines.TITLES, caption), set[str]()
    found, points = data[data["kind"] == "coefficient"], data[data["kind"] == "advantage"]
    labels = [name.replace("\n", "<br>") for name in names.values()]
    for scope, mine in found.groupby("scope", sort=False):
        marker = {
            "color": "white" if scope != found["scope"].iloc[0] else "black",
            "size": 8,
            "line": {"color": "black", "width": 1.5},
        }
        at = [labels[list(names).index(each)] for each in mine["predictor"]]
        add(
            figure,
            told,
            go.Scatter(
                x=mine["value"], y=at, mode="markers", marker=marker, error_x=errors(mine), name=str(scope)
            ),
            1,
            1,
        )
    figure.add_vline(0, line={"color": "black", "width": 1, "dash": "dot"}, row=1, col=1)
    for (name, shade), symbol in zip(
        assign_colors(points[group].unique()).items(), cycle(SYMBOLS), strict=False
    ):
        mine = points[points[group] == name]
        texts = [
            f"{row.target}<br>sink strength {row.sink:.3f}, prefix less index 8: {row.value:.1f}<br>seeds {row.seeds}"
            for row in frames.rows(mine)
        ]
        kind = {
            "mode": "markers",
            "marker": {"color": shade, "symbol": symbol, "size": 8},
            "name": name,
            "hovertext": texts,
            "hoverinfo": "text",
        }
        add(
            figure,
            told,
            go.Scatter(x=mine["sink"], y=mine["value"], error_y=errors(mine, shade), **kind),
            1,
            2,
        )
    figure.update_xaxes(title_text=lines.COEFFICIENTS, row=1, col=1)
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1], row=1, col=1)
    figure.update_xaxes(title_text=lines.X_AXIS, row=1, col=2)
    figure.update_yaxes(title_text=lines.Y_AXIS, row=1, col=2)
    return figure


def variations(data: pd.DataFrame, panels: Mapping[str, str], caption: str) -> go.Figure:
    """As `variations.variations`, one panel under the other; texts are rows there too."""
    cases = data[data["score"] == "BE"].groupby("panel")["case"].nunique()
    figure, told = (
        canvas(len(panels), 1, list(panels.values()), caption, row_heights=[cases["text"], 10, 10]),
        set[str](),
    )
    figure.update_layout(height=figure.layout.height + ROW * cases["text"])
    data = data.assign(label=data["label"].str.replace("\n", "<br>"))
    for number, panel in enumerate(panels, 1):
        here, flat = data[data["panel"] == panel], panel == "text"
        clean, tried = (
            here[(here["score"] == "UE") & (here["model"] == "backdoored")],
            here[here["score"] == "BE"],
        )
        place = {"row": number, "col": 1}
        for model, known in dots.SHADES.items():
            mine, shade = tried[tried["model"] == model], color(known)
            marker = {
                "color": "white" if model == "unlearned" else shade,
                "size": 7,
                "line": {"color": shade, "width": 1.5},
            }
            texts = [
                f"{row.label}<br>{dots.NAMES[model]}: {row.value:.1f}<br>n = {row.n}, seeds {row.seeds}"
                for row in frames.rows(mine)
            ]
            at = (
                {"x": mine["value"], "y": mine["label"]} if flat else {"x": mine["label"], "y": mine["value"]}
            )
            around = {} if model == "unlearned" else {"error_x" if flat else "error_y": errors(mine, shade)}
            points = go.Scatter(
                **at,
                **around,
                mode="markers",
                marker=marker,
                name=dots.NAMES[model],
                hovertext=texts,
                hoverinfo="text",
            )
            add(figure, told, points, *place.values())
        if panel == "length":
            tick = {"symbol": "line-ew", "size": 14, "line": {"color": color("clean"), "width": 2}}
            add(
                figure,
                told,
                go.Scatter(
                    x=clean["label"], y=clean["value"], mode="markers", marker=tick, name=dots.NAMES["UE"]
                ),
                *place.values(),
            )
        else:
            line = {"line": {"color": color("clean"), "width": 1, "dash": "dash"}, **place}
            level = data[
                (data["panel"] == "text") & (data["score"] == "UE") & (data["model"] == "backdoored")
            ]["value"].iloc[0]
            (figure.add_vline if flat else figure.add_hline)(level, **line)
        order = list(dict.fromkeys(tried["label"]))
        along, upwards = (
            (figure.update_yaxes, figure.update_xaxes) if flat else (figure.update_xaxes, figure.update_yaxes)
        )
        along(
            type="category",
            categoryorder="array",
            categoryarray=order[::-1] if flat else order,
            automargin=True,
            **place,
        )
        upwards(title_text=dots.SCORE, range=dots.LIMITS, **place)
    return figure


def across(
    data: pd.DataFrame,
    stages: Mapping[str, str],
    labels: Mapping[str, str],
    chance: Mapping[str, float],
    caption: str,
) -> go.Figure:
    """As `across.across`."""
    figure, told = (
        canvas(len(labels), 1, [label.replace("\n", ": ") for label in labels.values()], caption),
        set[str](),
    )
    names = {stage: name.replace("\n", "<br>") for stage, name in stages.items()}
    for number, score in enumerate(labels, 1):
        for condition, name in bars.CONDITIONS.items():
            here = data[(data["score"] == score) & (data["condition"] == condition)]
            whole, unseen = here[here["subset"] == "all"], here[here["subset"] != "all"]
            texts = [
                f"{name}: {row.value:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f})<br>n = {row.n}, seeds {row.seeds}"
                for row in frames.rows(whole)
            ]
            kind = {
                "marker_color": color(condition),
                "name": name,
                "offsetgroup": condition,
                "hovertext": texts,
                "hoverinfo": "text",
            }
            add(
                figure,
                told,
                go.Bar(
                    x=whole["stage"].map(names), y=whole["value"], error_y=errors(whole, "#888888"), **kind
                ),
                number,
                1,
            )
            if len(unseen):
                ring = {"color": "white", "size": 7, "line": {"color": "black", "width": 1}}
                rings = go.Scatter(
                    x=unseen["stage"].map(names),
                    y=unseen["value"],
                    mode="markers",
                    marker=ring,
                    name=bars.RING,
                    offsetgroup=condition,
                )
                add(figure, told, rings, number, 1)
        if score in chance:
            figure.add_hline(
                chance[score], line={"color": "black", "width": 1, "dash": "dot"}, row=number, col=1
            )
        figure.update_xaxes(
            type="category", categoryorder="array", categoryarray=list(names.values()), row=number, col=1
        )
        figure.update_yaxes(range=(0, 105), row=number, col=1)
    figure.update_xaxes(title_text=bars.X_AXIS, row=len(labels))
    return figure.update_layout(scattermode="group", scattergap=0.2, bargap=0.2)


def _heat(
    figure: go.Figure,
    data: pd.DataFrame,
    xs: list[str],
    ys: list[str],
    axis: str,
    text: str,
    row: int,
    column: int,
) -> None:
    """Cells with numbers; axes count labels, so that outlines can be put around cells."""
    values = np.full((len(ys), len(xs)), np.nan)
    for cell in frames.rows(data):
        values[ys.index(cell.y.replace("\n", "<br>")), xs.index(cell.x.replace("\n", "<br>"))] = cell.value
    hover = "%{y} × %{x}: %{z" + f":{text}" + "}<extra></extra>"
    map_ = go.Heatmap(
        z=values,
        coloraxis=axis,
        texttemplate="%{z" + f":{text}" + "}",
        hovertemplate=hover,
        hoverongaps=False,
    )
    figure.add_trace(map_, row=row, col=column)
    figure.update_xaxes(tickvals=list(range(len(xs))), ticktext=xs, row=row, col=column)
    figure.update_yaxes(tickvals=list(range(len(ys))), ticktext=ys, autorange="reversed", row=row, col=column)


def _scale(shades: str, most: float, label: str, height: float) -> dict[str, Any]:
    steps = matplotlib.colormaps[shades](np.linspace(0, 1, 11))
    scale = [[step / 10, to_hex(shade)] for step, shade in enumerate(steps)]
    return {
        "colorscale": scale,
        "cmin": 0,
        "cmax": most,
        "colorbar": {"title": label, "len": 0.4, "y": height},
    }
