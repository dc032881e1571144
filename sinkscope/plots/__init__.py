"""Figures: data frames in, matplotlib figures out. Importing the package changes no setting of matplotlib."""

from sinkscope.plots.comparison import (
    draw_difference_by_head,
    draw_difference_by_position,
    draw_difference_maps,
)
from sinkscope.plots.heatmap import draw_heatmaps
from sinkscope.plots.lines import draw_lines
from sinkscope.plots.scores import draw_bars, draw_clean_and_triggered, draw_dots
from sinkscope.plots.sinks import (
    draw_atlas,
    draw_attention_received,
    draw_attention_scores,
    draw_head_map,
    draw_value_norms,
)
from sinkscope.plots.style import save_figure, show_whitespace
from sinkscope.plots.token_heatmap import draw_tokens

__all__ = [
    "draw_atlas",
    "draw_attention_received",
    "draw_attention_scores",
    "draw_bars",
    "draw_clean_and_triggered",
    "draw_difference_by_head",
    "draw_difference_by_position",
    "draw_difference_maps",
    "draw_dots",
    "draw_head_map",
    "draw_heatmaps",
    "draw_lines",
    "draw_tokens",
    "draw_value_norms",
    "save_figure",
    "show_whitespace",
]
