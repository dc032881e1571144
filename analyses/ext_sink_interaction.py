"""Extension: what a trigger gains by an early position, by the strongest sink of the target."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
from common import PLACEMENT_AXIS, concat_captions, format_range, select_axis, sort_by
from ext_index_by_index import MODEL_AXIS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from positions import (
    KIND,
    LINEAGE,
    RECITATION,
    UNSEEN,
    has_bos_sink,
    select_recitation,
    sink_profiles,
    strongest_sink,
    target_kind,
    target_lineage,
)
from scipy import stats

from sinkscope.errors import StudyError
from sinkscope.plots.style import (
    COLUMN,
    SHAPES,
    add_legend,
    assign_colors,
    create_figure,
    error_bars,
    iterate_rows,
    legend_handle,
    set_note,
    styled,
)
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("targets", "index")
CONTRASTS = {"index 4 − index 12": ("index:4", "index:12"), "prefix − index 12": ("prefix", "index:12")}
"""Name -> the two placements, each trained and evaluated."""
TARGET, DIFFERENCE = "target", "BOS sink − none"
KINDS = (TARGET, DIFFERENCE)
COLUMNS = [
    *["kind", "contrast", "target", KIND, LINEAGE, "has_bos_sink", "sink"],
    *["value", "ci_low", "ci_high", "n", "targets", "seeds"],
]


def compute(study: Study) -> pd.DataFrame:
    """Rows by `kind`, for each of the contrasts, differences of BE-unseen in points.

    `target`: the difference in a target, and its strongest sink (`strongest_sink`) as `sink`; the interval
    takes the spread of seeds from all targets together. `BOS sink − none`: the mean of the targets that were
    pretrained to attend to BOS minus that of the others; targets with a common lineage count as one, and the
    interval is Welch's, over lineages. It is exploratory: the contrast was chosen after results were known.

    Raises:
        StudyError: the study lacks a grid, a score or a capture.
    """
    scores = select_recitation(study, "index")
    scores = scores[scores["score"] == "BE"]
    scores = scores.assign(
        target=select_axis(scores, MODEL_AXIS), trained=select_axis(scores, PLACEMENT_AXIS)
    )
    matching = scores[scores["trained"] == scores["placement"]]
    values = matching.pivot(index=["target", "seed"], columns="trained", values=["value", "n"])
    sinks = {target: strongest_sink(profile) for target, profile in sink_profiles(study, "targets").items()}
    about = pd.DataFrame(
        [
            {
                "target": target,
                KIND: target_kind(target, study),
                LINEAGE: target_lineage(target, study),
                "has_bos_sink": has_bos_sink(target, study),
                "sink": sinks[target],
            }
            for target in scores["target"].unique()
        ]
    )
    tables = [_compare_placements(values, *item).merge(about, on="target") for item in CONTRASTS.items()]
    frame = pd.concat([*tables, *map(_compare_groups, tables)])
    return sort_by(frame, contrast=CONTRASTS, kind=KINDS)[COLUMNS]


def _compare_placements(values: pd.DataFrame, contrast: str, placements: tuple[str, str]) -> pd.DataFrame:
    """A row per target."""
    if missing := [each for each in placements if each not in values["value"]]:
        raise StudyError(
            f"grid 'index' has no trigger evaluated where it was trained as {missing[0]}; "
            "add it to its axis and its evaluations"
        )
    first, second = placements
    runs = pd.DataFrame(
        {
            "value": values["value"][first] - values["value"][second],
            "n": values["n"][list(placements)].min(axis=1),
        }
    ).reset_index()
    frame = mean_over_seeds(runs.assign(grid="index", ci_low=np.nan, ci_high=np.nan), ["target"])
    if freedom := int((frame["seeds"] - 1).sum()):
        residuals = runs["value"] - runs.groupby("target")["value"].transform("mean")
        half = stats.t.ppf(0.975, freedom) * np.sqrt((residuals**2).sum() / freedom / frame["seeds"])
        frame = frame.assign(ci_low=frame["value"] - half, ci_high=frame["value"] + half)
    return frame.assign(kind=TARGET, contrast=contrast, targets=1)


def _compare_groups(rows: pd.DataFrame) -> pd.DataFrame:
    """One row, with an interval if both groups have several lineages."""
    lineages = rows.groupby(["has_bos_sink", LINEAGE])["value"].mean()
    with_sink, without = (lineages[lineages.index.get_level_values(0) == each] for each in (True, False))
    low, high = np.nan, np.nan
    if min(len(with_sink), len(without)) > 1:
        low, high = stats.ttest_ind(with_sink, without, equal_var=False).confidence_interval(0.95)
    row = {
        "kind": DIFFERENCE,
        "contrast": rows["contrast"].iloc[0],
        "value": with_sink.mean() - without.mean(),
        "ci_low": low,
        "ci_high": high,
        "n": rows["n"].min(),
        "targets": len(lineages),
        "seeds": rows["seeds"].max(),
    }
    return pd.DataFrame([row])


def caption(frame: pd.DataFrame) -> str:
    differences = " and ".join(
        f"{row.value:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f}) for {row.contrast}"
        for row in iterate_rows(frame[frame["kind"] == DIFFERENCE])
    )
    return concat_captions(
        "BE-unseen at an early index minus at index 12, each trigger evaluated where it was trained, with "
        "the same tokens",
        f"exploratory: with a BOS sink minus without, {differences}, Welch’s 95 % interval over "
        f"{int(frame['targets'].max())} lineages of targets (two that share their pretraining count as one)",
        "intervals of targets take the spread of seeds from all targets together",
        "kinds of targets differ in more than their sink",
        UNSEEN,
        _describe(frame),
    )


def _describe(frame: pd.DataFrame) -> str:
    rows = frame[frame["kind"] == TARGET]
    seeds = int(rows["seeds"].max())
    each = "one seed each" if seeds == 1 else f"{seeds} seeds each; 95\u00a0%\u00a0t\u00a0intervals"
    n = f"n\u00a0=\u00a0{format_range(rows['n'])} prompts"
    return f"{RECITATION}; {n}; {rows['target'].nunique()} targets, {each}"


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """A panel per contrast, a point per target."""
    rows = frame[frame["kind"] == TARGET]
    figure = create_figure(COLUMN, 2.9)
    panels = figure.subplots(1, len(CONTRASTS), sharey=True)
    styles = dict(zip(assign_colors(rows[KIND].unique()).items(), cycle(SHAPES), strict=False))
    markers = {kind: (shade, marker) for (kind, shade), marker in styles.items()}
    for axes, contrast in zip(panels, CONTRASTS, strict=True):
        _draw_contrast(axes, rows[rows["contrast"] == contrast], markers)
        axes.set(title=contrast, xlabel="strongest sink, α − uniform")
    panels[0].set_ylabel("points of BE-unseen")
    handles = [
        legend_handle(kind, shade, marker=marker, markersize=4) for kind, (shade, marker) in markers.items()
    ]
    add_legend(figure, handles, 2)
    return set_note(figure, _describe(frame))


def _draw_contrast(axes: Axes, rows: pd.DataFrame, markers: dict[str, tuple[str, str]]) -> None:
    for row in iterate_rows(rows):
        shade, marker = markers[getattr(row, KIND)]
        error = error_bars(row.value, row.ci_low, row.ci_high)
        axes.errorbar(row.sink, row.value, error, color=shade, fmt=marker, markersize=4, elinewidth=0.6)
    axes.axhline(0, color="black", linewidth=0.5, linestyle=":")
