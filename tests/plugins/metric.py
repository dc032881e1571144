"""A plugin: the share of outputs that begin with the reference's first word."""

from __future__ import annotations

from sinkscope.evaluation.items import Item, verbmem_items
from sinkscope.evaluation.metrics import VERBMEM_SPLITS, Metric, Scale, register_metric
from sinkscope.evaluation.requests import generate_until


def first_word_matches(item: Item, output: str) -> float:
    """1.0 if the first words are equal, else 0.0."""
    return float(output.split()[:1] == item.reference.split()[:1])


register_metric(
    "first_word",
    Metric(
        VERBMEM_SPLITS,
        verbmem_items,
        generate_until,
        first_word_matches,
        Scale(lambda mean: 100 * mean, "%", 1),
    ),
)
