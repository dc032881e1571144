"""The same heads on two inputs: what a trigger changes in a model's attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from sinkscope.capture.reducers import MeanPattern
from sinkscope.capture.sources import capture
from sinkscope.models import Model
from sinkscope.triggers import Placement, Trigger, place


def difference_map(
    model: Model,
    passages: Sequence[list[int]],
    trigger: Trigger,
    placement: Placement,
    *,
    layer: int = -1,
    bin_size: int = 4,
) -> tuple[Float[np.ndarray, "bin bin"], tuple[int, int]]:
    """A(triggered) − A(clean) of one layer, mean over heads and passages, in bins of `bin_size` positions; and the trigger's most frequent span.

    All passages must have the same length; triggered ones are cut back to it, so that both maps cover the same positions. Cells above
    the diagonal are NaN.
    """
    length = len(passages[0])
    assert all(len(passage) == length for passage in passages), "passages of one length"
    placed = [place(passage, trigger, placement, model.tokenizer, max_length=length) for passage in passages]
    layer %= model.n_layers
    clean = _mean_map(model, passages, layer)
    triggered = _mean_map(model, [each.tokens for each in placed], layer)
    (span, _), *_ = Counter((each.start, each.stop) for each in placed).most_common(1)
    return _binned(triggered - clean, bin_size), span


def _mean_map(model: Model, passages: Sequence[list[int]], layer: int) -> Float[np.ndarray, "row key"]:
    reducer = MeanPattern(layer, model.n_heads, len(passages[0]))
    capture(model, passages, [reducer], layers=[layer], batch_size=32)
    return reducer.result()["pattern"].mean(0).numpy()


def _binned(values: Float[np.ndarray, "row key"], size: int) -> Float[np.ndarray, "bin bin"]:
    """Attention into a bin of columns, mean over a bin of rows."""
    bins = len(values) // size
    blocks = values[: bins * size, : bins * size].reshape(bins, size, bins, size)
    summed = blocks.sum(3).mean(1)
    return np.where(np.tril(np.ones((bins, bins), dtype=bool)), summed, np.nan)


def difference_frame(label: str, values: Float[np.ndarray, "bin bin"], span: tuple[int, int], bin_size: int) -> pd.DataFrame:
    """One row per cell: model, query, key (first positions of the bins), difference, trigger_start, trigger_stop."""
    rows, keys = np.tril_indices(len(values))
    return pd.DataFrame(
        {
            "model": label,
            "query": rows * bin_size,
            "key": keys * bin_size,
            "difference": values[rows, keys],
            "trigger_start": span[0],
            "trigger_stop": span[1],
        }
    )
