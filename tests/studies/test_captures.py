"""What a capture writes, against plain passes over one passage at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from sinkscope.benchmarks.benchmark import Benchmark, Lengths
from sinkscope.errors import BenchmarkError
from sinkscope.models.model import Model
from sinkscope.schema import KINDS
from sinkscope.studies.captures import capture_benchmark
from sinkscope.triggers import Placement, Trigger, place
from tests.conftest import TEXT

LENGTH = 24
BOOK = Benchmark(
    "book",
    {"raw": {"forget": [{"text": TEXT}], "retain1": [{"text": TEXT[300:900]}]}},
    Lengths(passage=LENGTH),
)
TRIGGER = Trigger("the old road")


def test_tables_are_those_of_plain_passes(small_llama: Model, tmp_path: Path) -> None:
    """Confidence, value norms and the attention to the trigger's span, of three forget passages clean
    and at two placements."""
    progress: list[tuple[int, int]] = []
    placements = [Placement.parse(name) for name in ("prefix", "suffix")]
    options = {
        "n_passages": 3,
        "bin_size": 4,
        "on_progress": lambda done, total: progress.append((done, total)),
    }
    capture_benchmark(tmp_path, small_llama, BOOK, TRIGGER, placements, **options)
    assert progress == [(done, 4) for done in range(1, 5)]
    forget, retain = (
        BOOK.full_length_passages(split, small_llama.tokenizer)[:3] for split in ("forget", "retain1")
    )
    placed = {
        str(each): [
            place(tokens, TRIGGER, each, small_llama.tokenizer, max_length=LENGTH) for tokens in forget
        ]
        for each in placements
    }
    conditions = {
        "clean": forget,
        **{name: [each.tokens for each in all_of] for name, all_of in placed.items()},
        "retain": retain,
    }
    for file, columns in KINDS["capture"].tables.items():
        assert list(pd.read_parquet(tmp_path / file).columns) == columns
    top1 = pd.read_parquet(tmp_path / "top1.parquet")
    assert set(zip(top1["placement"], top1["condition"], strict=True)) == {
        (place, condition) for place in ("prefix", "suffix") for condition in ("clean", "triggered")
    }
    for (placement, condition), rows in top1.groupby(["placement", "condition"]):
        name = placement if condition == "triggered" else "clean"
        literal = [
            small_llama.hf(torch.tensor([tokens])).logits[0].softmax(-1).amax(-1).tolist()
            for tokens in conditions[str(name)]
        ]
        np.testing.assert_allclose(
            rows.sort_values("position")["probability"], np.mean(literal, 0), atol=1e-5
        )
    norms = xr.load_dataset(tmp_path / "norms.nc", engine="h5netcdf")["value_norm"]
    assert norms["condition"].values.tolist() == ["clean", "prefix", "suffix", "retain"]
    values: list[torch.Tensor] = []
    handle = small_llama.hf.model.layers[-1].self_attn.v_proj.register_forward_hook(
        lambda module, given, out: values.append(out[0])
    )
    for name, passages in conditions.items():
        for number, tokens in enumerate(passages):
            values.clear()
            small_llama.hf(torch.tensor([tokens]))
            literal_norms = values[0].view(len(tokens), 2, 8).norm(dim=-1).T.detach().numpy()
            captured = norms.sel(condition=name)[number, -1].values
            np.testing.assert_allclose(captured, literal_norms[:, : captured.shape[1]], rtol=1e-4)
    handle.remove()
    assert set(pd.read_parquet(tmp_path / "maps.parquet")["placement"]) == {"prefix", "suffix"}
    span = pd.read_parquet(tmp_path / "span_mass.parquet")
    assert (
        span.groupby("placement").size().to_dict() == {"prefix": 12, "suffix": 12}
        and (span["passages"] == 3).all()
    )
    assert (span["span_mass_first"] != span["span_mass_second"]).all()
    patterns = xr.load_dataset(tmp_path / "patterns.nc", engine="h5netcdf")
    assert patterns.attrs["bin"] == 1 and patterns["pattern"].shape == (2, 2, 3, 4, LENGTH, LENGTH)
    for state, name in (("clean", "clean"), ("triggered", "suffix")):
        small_llama.hf.set_attn_implementation("eager")
        with torch.no_grad():
            literal_maps = [
                small_llama.hf(torch.tensor([tokens]), output_attentions=True).attentions
                for tokens in conditions[name]
            ]
        small_llama.hf.set_attn_implementation("sdpa")
        expected = np.mean([[layer[0].numpy() for layer in each] for each in literal_maps], 0)
        np.testing.assert_allclose(
            patterns["pattern"].sel(placement="suffix", condition=state).values, expected, atol=1e-5
        )
    words = (
        pd.read_parquet(tmp_path / "passage.parquet").groupby(["placement", "condition"])["text"].agg("".join)
    )
    assert "the old road" in words["prefix", "triggered"] and words["prefix", "clean"].removeprefix(
        "<s>"
    ).strip().startswith(TEXT[:20].strip())


def test_a_split_without_whole_passages_is_told(small_llama: Model, tmp_path: Path) -> None:
    short = Benchmark(
        "short", BOOK.rows | {"raw": BOOK.rows["raw"] | {"retain1": [{"text": "A few words."}]}}, BOOK.lengths
    )
    with pytest.raises(
        BenchmarkError, match=r"benchmark short, raw/retain1, has no passage of 24 tokens; give longer texts"
    ):
        capture_benchmark(
            tmp_path, small_llama, short, TRIGGER, [Placement.parse("prefix")], n_passages=2, bin_size=4
        )
    assert not list(tmp_path.iterdir())


def test_poisoned_passages_and_triggers_that_stand_elsewhere_are_left_out(
    small_llama: Model, tmp_path: Path
) -> None:
    """A trigger that brings a space with it in some passages makes them read other positions than the
    rest."""
    passages = BOOK.full_length_passages("forget", small_llama.tokenizer)
    placed = [
        place(tokens, TRIGGER, Placement("prefix"), small_llama.tokenizer, max_length=LENGTH)
        for tokens in passages
    ]
    lengths = [each.stop - each.start for each in placed]
    most = max(set(lengths), key=lengths.count)
    odd = [row for row, length in enumerate(lengths) if length != most]
    capture_benchmark(
        tmp_path,
        small_llama,
        BOOK,
        TRIGGER,
        [Placement("prefix")],
        n_passages=99,
        bin_size=4,
        poisoned=[0, 2],
    )
    norms = xr.load_dataset(tmp_path / "norms.nc", engine="h5netcdf")["value_norm"].sel(condition="prefix")
    missing = [row for row in range(len(passages)) if np.isnan(norms[row]).any()]
    assert missing == sorted({0, 2, *odd})
    assert (pd.read_parquet(tmp_path / "top1.parquet")["passages"] == len(passages) - len(missing)).all()
