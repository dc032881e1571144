"""From a model and passages to a directory with its sinks, tables and pictures: what `sinkscope locate` does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from sinkscope.capture.massive import MassiveActivations
from sinkscope.capture.reducers import MeanPattern
from sinkscope.capture.sink_tokens import SinkTokens, token_kind
from sinkscope.capture.sources import Source, capture
from sinkscope.models import Model
from sinkscope.plots import sinks as pictures
from sinkscope.plots.style import save
from sinkscope.progress import Report
from sinkscope.runs import identity, is_done, writing
from sinkscope.sinks import SinkMap, locate

MAP_TOKENS = 48


def locate_in_text(
    model: Model,
    passages: list[list[int]],
    out: Path,
    *,
    epsilon: float,
    also: list[str],
    source: Source | None = None,
    batch_size: int = 8,
    report: Report | None = None,
) -> dict[str, Any]:
    """Locate sinks, write `sinks.parquet`, `sinks.nc`, `sink_tokens.parquet`, `token_kinds.parquet`, `massive_activations.parquet` and `figures/` to `out`.

    A finished run of the same model, text and settings is left as it is.
    """
    text_hash = hashlib.sha256(json.dumps(passages).encode()).hexdigest()
    name = identity(model=model.fingerprint(), passages=text_hash, epsilon=epsilon, also=sorted(also), source=source)
    if is_done(out, name):
        return summarise(SinkMap.read(out))
    with writing(out, name, kind="locate", model=model.name, passages=len(passages), epsilon=epsilon) as aside:
        ids = sorted({token for passage in passages for token in passage})
        names = dict(zip(ids, model.tokenizer.convert_ids_to_tokens(ids), strict=True))
        kinds = {token: token_kind(name, model.tokenizer.decode([token])) for token, name in names.items()}
        tokens, massive = SinkTokens(passages, kinds, model.n_heads, epsilon), MassiveActivations(model.n_layers)
        sinks = locate(model, passages, epsilon=epsilon, also=also, reducers=[tokens, massive], source=source, batch_size=batch_size, report=report)
        sinks.save(aside)
        table = tokens.sinks()
        table.insert(2, "text", [model.tokenizer.decode([token]) for token in table["token"]])
        table.to_parquet(aside / "sink_tokens.parquet", index=False)
        tokens.kinds().to_parquet(aside / "token_kinds.parquet", index=False)
        massive.table().to_parquet(aside / "massive_activations.parquet", index=False)
        draw(model, sinks, passages[0], aside / "figures")
    return summarise(sinks)


def summarise(sinks: SinkMap) -> dict[str, Any]:
    """The strongest sinks and what the first position attracts."""
    ranked = sinks.ranked().head(3)
    return {
        "passages": int(sinks.data.attrs["passages"]),
        "source": sinks.data.attrs["source"],
        "strongest_positions": [int(position) for position in ranked["position"]],
        "alpha_of_strongest": [round(float(alpha), 4) for alpha in ranked["alpha"]],
        "first_position_alpha": float(sinks.alpha.sel(position=0).mean()),
        "first_position_alpha_uniform": float(sinks.uniform()[0]),
        "first_position_sink_rate": float(sinks.data["sink_rate"].sel(position=0).mean()),
        "strongest_head": [int(i) for i in np.unravel_index(int(sinks.alpha.sel(position=0).values.argmax()), sinks.alpha.shape[:2])],
    }


def draw(model: Model, sinks: SinkMap, passage: list[int], directory: Path) -> None:
    """Atlas, attention by position, value norms, and the strongest head's map on one passage."""
    data, n = sinks.to_frame(), int(sinks.data.attrs["passages"])
    what = f"{model.name}, n = {n} passages of ≤ {sinks.data.attrs['max_length']} tokens"
    position = sinks.strongest(1)
    save(pictures.atlas(data, position, what), data[data["position"] == position], directory, "atlas")
    profile = data.groupby("position", as_index=False)[["alpha", "value_norm"]].mean()
    profile["model"], profile["uniform"] = model.name, sinks.uniform()
    save(pictures.received(profile, what), profile, directory, "received_attention")
    norms = profile[profile["position"] < 32]
    save(pictures.value_norms(norms, f"mean over layers and heads, {what}"), norms, directory, "value_norms")
    layer, head = np.unravel_index(int(sinks.alpha.sel(position=position).values.argmax()), sinks.alpha.shape[:2])
    pattern, labels = head_pattern(model, passage[:MAP_TOKENS], int(layer), int(head))
    figure = pictures.head_map(pattern, labels, f"{model.name}: layer {layer}, head {head}")
    save(figure, pictures.map_frame(pattern, labels), directory, "head_map")


def head_pattern(model: Model, tokens: list[int], layer: int, head: int) -> tuple[np.ndarray, list[str]]:
    """One head's attention map on one passage, and its tokens as labels."""
    reducer = MeanPattern(layer, model.n_heads, len(tokens))
    capture(model, [tokens], [reducer], layers=[layer])
    labels = [model.tokenizer.decode([token]).replace("\n", "⏎").strip() or "␣" for token in tokens]
    return reducer.result()["pattern"][head].numpy(), labels
