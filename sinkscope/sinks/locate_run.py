"""From a model and passages to a directory with its sinks, tables and pictures: what `sinkscope locate` does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import config_hash, create_run, is_complete
from sinkscope.io.tables import write_netcdf
from sinkscope.models.model import Model
from sinkscope.plots import sinks as pictures
from sinkscope.plots import token_heatmap as strip
from sinkscope.plots.style import save_figure
from sinkscope.plots.text import show_whitespace
from sinkscope.sinks.backends import Backend, choose_backend
from sinkscope.sinks.locate import MIN_QUERIES, SinkMap, locate
from sinkscope.sinks.maps import BinnedPattern, bin_for
from sinkscope.sinks.massive import MassiveActivations
from sinkscope.sinks.sampling import ALWAYS_SAMPLED, Sampling
from sinkscope.sinks.sink_tokens import SinkTokens, token_kind
from sinkscope.sinks.statistics import Statistic
from sinkscope.text import token_texts

Head = tuple[int, int]
"""Layer and head, from 0."""
MAP_BINS = 128
"""Maps of longer passages have this many bins a side, or a few less."""


def parse_head(text: str) -> Head:
    """`3:5` as layer 3, head 5.

    Raises:
        ModelError: it is not of that form.
    """
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text.strip())
    if not found:
        raise ModelError(f"--head {text!r} is not layer:head; write it like --head 3:5")
    return int(found[1]), int(found[2])


def locate_in_text(
    model: Model,
    passages: Sequence[list[int]],
    out: Path,
    *,
    epsilon: float,
    also: list[str],
    heads: Sequence[Head] = (),
    source: Backend | None = None,
    rows: float | None = None,
    seed: int = 0,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Locate sinks, write `sinks.parquet`, `sinks.nc`, `sink_tokens.parquet`, `token_kinds.parquet`, `massive_activations.parquet` and `figures/` to `out`.

    Of the first passage alone `passage.parquet` (position, token, text) and `passage.nc` (`alpha`, `value_norm` by layer, head, position; `pattern`, every
    head's attention map in bins of its attribute `bin`).

    A finished run of the same model, text and settings is left as it is.

    Args:
        heads: whose attention maps and token strips to draw; by default the map of the head with the strongest sink.
        rows: sample this share of the queries (see `locate`). Then there are no `sink_tokens` and `token_kinds`, which need every row.
        seed: which queries are drawn.

    Raises:
        ModelError: the model has no such head.
    """
    heads = list(dict.fromkeys(heads))
    for layer, head in heads:
        if layer >= model.n_layers or head >= model.n_heads:
            known = f"layers 0 to {model.n_layers - 1} with heads 0 to {model.n_heads - 1}"
            raise ModelError(
                f"--head {layer}:{head} does not exist: model {model.name!r} has {known}; choose among these"
            )
    sampling: dict[str, Any] = {} if rows is None else {"rows": rows, "seed": seed}
    name = config_hash(
        "locate",
        model=model.fingerprint(),
        passages=_digest(passages),
        epsilon=epsilon,
        also=sorted(also),
        heads=heads,
        source=source,
        **sampling,
    )
    if is_complete(out, name):
        return summarize(SinkMap.read(out))
    with create_run(
        out, name, kind="locate", model=model.name, passages=len(passages), epsilon=epsilon
    ) as aside:
        tokens, massive = (
            SinkTokens(passages, _kinds(model, passages), model.n_heads, epsilon),
            MassiveActivations(model.n_layers),
        )
        sampled = (
            rows is not None
            and choose_backend(model, passages, source, Sampling(rows, seed)).sampling is not None
        )
        maps = BinnedPattern(
            [*np.ndindex(model.n_layers, model.n_heads)],
            len(passages[0]),
            bin_for(model.n_layers * model.n_heads, len(passages[0])),
        )
        single = len(passages) == 1 and not sampled  # then one pass sees all that there is to see
        statistics: list[Statistic] = [massive] if sampled else [massive, tokens, *([maps] if single else [])]
        options: dict[str, Any] = {"source": source, **sampling}
        sinks = locate(
            model,
            passages,
            epsilon=epsilon,
            also=also,
            statistics=statistics,
            batch_size=batch_size,
            on_progress=on_progress,
            **options,
        )
        sinks.save(aside)
        massive.table().to_parquet(aside / "massive_activations.parquet", index=False)
        if not sampled:
            table = tokens.sinks()
            table.insert(2, "text", [model.tokenizer.decode([token]) for token in table["token"]])
            table.to_parquet(aside / "sink_tokens.parquet", index=False)
            tokens.kinds().to_parquet(aside / "token_kinds.parquet", index=False)
        draw_summary(sinks, aside / "figures")
        alone = sinks if single else locate(model, passages[:1], source=source, statistics=[maps])
        words = pd.DataFrame(
            {
                "position": range(len(passages[0])),
                "token": passages[0],
                "text": token_texts(model, passages[0]),
            }
        )
        words.to_parquet(aside / "passage.parquet", index=False)
        write_netcdf({"/": passage_data(alone, maps)}, aside / "passage.nc", {"pattern": {"zlib": True}})
        draw_passage(model, sinks, alone, passages[0], heads, source, aside / "figures")
    return summarize(sinks)


def passage_data(alone: SinkMap, maps: BinnedPattern) -> xr.Dataset:
    """What `passage.nc` holds, from the sinks of a passage and the maps of all heads on it."""
    pattern = maps.result()["pattern"].numpy().astype(np.float32)
    split = pattern.reshape(*alone.alpha.shape[:2], *pattern.shape[1:])
    return (
        alone.data[["alpha", "value_norm"]]
        .assign(pattern=(("layer", "head", "query", "key"), split))
        .assign_attrs(bin=maps.bin_size)
    )


def _digest(passages: Sequence[list[int]]) -> str:
    """SHA-256 of the passages as a JSON list, which is never there as a whole."""
    digest, between = hashlib.sha256(), "["
    for passage in passages:
        digest.update((between + json.dumps(passage)).encode())
        between = ", "
    digest.update(b"]")
    return digest.hexdigest()


def _kinds(model: Model, passages: Sequence[list[int]]) -> dict[int, str]:
    """The kind of every token that occurs."""
    ids = sorted({token for passage in passages for token in passage})
    names = model.tokenizer.convert_ids_to_tokens(ids)
    return {
        token: token_kind(name, model.tokenizer.decode([token]))
        for token, name in zip(ids, names, strict=True)
    }


def summarize(sinks: SinkMap) -> dict[str, Any]:
    """The strongest sinks and what the first position attracts."""
    ranked, sampled = sinks.ranked().head(3), "rows" in sinks.data.attrs
    first, there = sinks.data.sel(position=0), sinks.alpha.sel(position=sinks.strongest(1))
    return {
        "passages": int(sinks.data.attrs["passages"]),
        "source": sinks.data.attrs["source"],
        **(
            {"rows": float(sinks.data.attrs["rows"]), "seed": int(sinks.data.attrs["seed"])}
            if sampled
            else {}
        ),
        "strongest_positions": [int(position) for position in ranked["position"]],
        "alpha_of_strongest": [round(float(alpha), 4) for alpha in ranked["alpha"]],
        "uniform_there": [round(float(alpha), 4) for alpha in ranked["uniform"]],
        "first_position_alpha": float(first["alpha"].mean()),
        "first_position_alpha_uniform": float(sinks.uniform()[0]),
        **({} if sampled else {"first_position_sink_rate": float(first["sink_rate"].mean())}),
        "strongest_head_there": [
            int(i) for i in np.unravel_index(int(there.values.argmax()), sinks.alpha.shape[:2])
        ],
    }


def draw_summary(sinks: SinkMap, directory: Path) -> None:
    """Over all passages: atlas, attention by position, value norms."""
    data, about = sinks.to_frame(), sinks.data.attrs
    what = f"{about['model']}, n = {about['passages']} passages of ≤ {about['max_length']} tokens"
    what += (
        f", {about['rows']:g} of the queries behind the first {ALWAYS_SAMPLED} (seed {about['seed']})"
        if "rows" in about
        else ""
    )
    position = sinks.strongest(1)
    save_figure(
        pictures.draw_atlas(data, position, f"mean over passages, {what}"),
        data[data["position"] == position],
        directory,
        "atlas",
    )
    profile = data.groupby("position", as_index=False)[["alpha", "value_norm"]].mean()
    profile["model"], profile["uniform"] = about["model"], sinks.uniform()
    save_figure(
        pictures.draw_attention_received(profile, f"mean over layers and heads, {what}"),
        profile,
        directory,
        "received_attention",
    )
    norms = profile[profile["position"] < 32]
    save_figure(
        pictures.draw_value_norms(norms, f"mean over layers and heads, {what}"),
        norms,
        directory,
        "value_norms",
    )


def draw_passage(
    model: Model,
    sinks: SinkMap,
    alone: SinkMap,
    passage: list[int],
    heads: Sequence[Head],
    source: Backend | None,
    directory: Path,
) -> None:
    """One passage, with the sinks of it `alone`: its tokens shaded by attention, and maps of `heads`, each with a strip of its own, or of the head
    that is strongest over all passages if there are none. Maps are of every row, also beside a sample."""
    tokens, what = token_texts(model, passage), f"n = 1 passage of {len(passage)} tokens"
    strips = {
        "token_strip": (
            alone.alpha.mean(["layer", "head"]).values,
            f"mean over {model.n_layers} layers × {model.n_heads} heads",
        )
    }
    at_sink = sinks.alpha.sel(position=sinks.strongest(1)).values
    chosen = heads or [divmod(int(at_sink.argmax()), model.n_heads)]
    bin_size = 1 if len(passage) <= MAP_BINS else -(-len(passage) // MAP_BINS)
    binned = f"; bins of {bin_size} positions: sum over keys, mean over queries" if bin_size > 1 else ""
    for (layer, head), pattern in head_maps(model, passage, chosen, bin_size, source).items():
        suffix, which = f"_{layer}_{head}" if heads else "", f"layer {layer}, head {head}"
        labels = map_labels(tokens)
        figure = pictures.draw_head_map(pattern, labels, f"{model.name}: {which}, {what}{binned}", bin_size)
        save_figure(
            figure, pictures.head_map_table(pattern, labels, bin_size), directory, f"head_map{suffix}"
        )
        if heads:
            strips[f"token_strip{suffix}"] = (alone.alpha.sel(layer=layer, head=head).values, which)
    for name, (alpha, which) in strips.items():
        shaded = np.where(np.arange(len(passage)) <= len(passage) - MIN_QUERIES, alpha, np.nan)
        title = f"{model.name}: {which}, {what}; the last {int(np.isnan(shaded).sum())} tokens, seen by too few queries, are not shaded"
        save_figure(
            strip.draw_tokens(tokens, shaded, title), strip.tokens_table(tokens, alpha), directory, name
        )


def head_maps(
    model: Model, tokens: list[int], heads: Sequence[Head], bin_size: int = 1, source: Backend | None = None
) -> dict[Head, Float[np.ndarray, "query_bin key_bin"]]:
    """Attention maps of some heads on one passage, in bins (see `BinnedPattern`)."""
    statistic = BinnedPattern(heads, len(tokens), bin_size)
    choose_backend(model, [tokens], source).capture(
        model, [tokens], [statistic], layers=sorted({layer for layer, _ in heads})
    )
    return dict(zip(heads, statistic.result()["pattern"].numpy(), strict=True))


def map_labels(texts: Sequence[str]) -> list[str]:
    """Tokens as labels beside a map: without the spaces around words."""
    return [show_whitespace(text.strip(" ") or text) for text in texts]
