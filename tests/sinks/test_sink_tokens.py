"""Sinks beyond the first token, and massive activations, on patterns and models whose answer is known."""

from __future__ import annotations

import copy
from statistics import median_low

import pandas as pd
import pytest
import torch

from sinkscope.models.hidden_states import decoder_layers
from sinkscope.models.model import Model
from sinkscope.sinks.capture import AttentionBlock, ResidualBlock, ValueBlock
from sinkscope.sinks.hooks import HooksBackend
from sinkscope.sinks.sink_tokens import MassiveActivations, SinkTokens, token_kind
from sinkscope.sinks.tiled import TiledBackend
from tests.sinks.families import CONFIGS, network

PASSAGES = [[1, 7, 9, 8, *[5] * 16], [1, 9, 7, 8, *[5] * 16]]
KINDS = {1: "other", 5: "word start", 7: "word part", 8: "word start", 9: "punctuation"}


def feed(statistic: SinkTokens, passages: list[list[int]], sinks: list[int]) -> None:
    """Two layers of two heads: head 0 attends to BOS, head 1 to the passage's entry of `sinks`."""
    for layer in range(2):
        for number, (tokens, sink) in enumerate(zip(passages, sinks, strict=True)):
            size = len(tokens)
            pattern = torch.zeros(2, size, size)
            pattern[0, :, 0] = 1
            pattern[1, torch.arange(size), torch.arange(size).clamp(max=sink)] = 1
            value = torch.ones(1, size, 4)
            value[0, [0, sink]] = 0.1
            statistic.update(ValueBlock(layer, number, value))
            statistic.update(
                AttentionBlock(layer, number, size, range(2), torch.arange(size), range(size), pattern, True)
            )


def test_secondary_sinks_have_token_layers_and_drained_values() -> None:
    statistic = SinkTokens(PASSAGES, KINDS, 2, 0.3)
    feed(statistic, PASSAGES, [2, 1])  # token 9 in both
    table = statistic.sinks()
    assert table[["position", "token", "kind"]].values.tolist() == [
        [0, 1, "first"],
        [1, 9, "punctuation"],
        [2, 9, "punctuation"],
    ]
    assert table["heads"].tolist() == [4, 2, 2]
    assert table["passages"].tolist() == [2, 1, 1]
    assert set(table["layers"]) == {"0,1"}
    assert table["alpha"].tolist() == [1, 1, 1]
    assert table["value_drain"].tolist() == pytest.approx([0.1] * 3)
    kinds = statistic.kinds().set_index("kind")
    assert kinds.loc["first", "probability"] == kinds.loc["punctuation", "probability"] == 0.5
    assert kinds["share_of_tokens"].sum() == pytest.approx(1)
    assert kinds.loc["punctuation", "tokens"] == 2


def test_the_end_of_a_passage_is_no_sink() -> None:
    statistic = SinkTokens(PASSAGES, KINDS, 2, 0.3)
    feed(statistic, PASSAGES, [11, 10])  # of 20 tokens, whose first 11 are seen by half of the queries
    assert statistic.sinks()["position"].tolist() == [0, 10]
    assert statistic.kinds()["tokens"].sum() == 2 * 11


def test_shards_of_sink_tokens_add_up() -> None:
    full, first, second = (
        SinkTokens(passages, KINDS, 2, 0.3) for passages in (PASSAGES, PASSAGES[:1], PASSAGES[1:])
    )
    feed(full, PASSAGES, [2, 1])
    feed(first, PASSAGES[:1], [2])
    feed(second, PASSAGES[1:], [1])
    pd.testing.assert_frame_equal((first + second).sinks(), full.sinks())
    pd.testing.assert_frame_equal((first + second).kinds(), full.kinds())
    with pytest.raises(ValueError, match="do not add up"):
        first + SinkTokens(PASSAGES, KINDS, 2, 0.2)


@pytest.mark.parametrize(
    ("token", "text", "kind"),
    [
        ("Ċ", "\n", "newline"),
        (".", ".", "punctuation"),
        ("Ġ,", " ,", "punctuation"),
        ("▁1987", "1987", "number"),
        ("Ġriver", " river", "word start"),
        ("▁river", "river", "word start"),
        ("bed", "bed", "word part"),
        ("Ġ", " ", "other"),
        ("x2", "x2", "word part"),
        ("Ã", "�", "character part"),
        ("Ġà¤¨", " न", "word start"),
        ("à¤¿", "\N{DEVANAGARI VOWEL SIGN I}", "word part"),
        ("ãĢĤ", "。", "punctuation"),
        ("½", "½", "other"),
        ("<s>", "<s>", "word part"),
    ],
)
def test_kinds_of_tokens(token: str, text: str, kind: str) -> None:
    assert token_kind(token, text) == kind


@pytest.mark.parametrize("kind", CONFIGS)
def test_massive_activations_of_both_backends_equal_the_hidden_states(kind: str, small_llama: Model) -> None:
    model = Model(kind, network(kind), small_llama.tokenizer)
    passages = [
        torch.randint(3, 400, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (21, 13)
    ]
    expected = [0.0] * 3
    plain = copy.deepcopy(model.hf)
    for passage in passages:
        outputs: dict[int, torch.Tensor] = {}
        for layer, module in enumerate(decoder_layers(plain)):
            module.register_forward_hook(
                lambda m, i, out, layer=layer, outputs=outputs: outputs.__setitem__(
                    layer, out[0] if isinstance(out, tuple) else out
                )
            )
        with torch.no_grad():
            states = plain.base_model(torch.tensor([passage]), output_hidden_states=True).hidden_states
        for layer in range(3):
            if layer < 2:  # the last state comes after the final norm
                torch.testing.assert_close(outputs[layer], states[layer + 1])
            expected[layer] = max(expected[layer], float(outputs[layer].abs().max()))
    for backend in (TiledBackend, HooksBackend) if kind != "bloom" else (HooksBackend,):
        statistic = MassiveActivations(3)
        backend().capture(model, passages, [statistic], batch_size=2)
        table = statistic.table()
        torch.testing.assert_close(
            torch.tensor(table["largest"]), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-5
        )
        assert (table["massive"] == 0).all()


def test_the_median_of_a_long_passage_is_over_evenly_spaced_tokens() -> None:
    residual = torch.rand(300, 7, generator=torch.Generator().manual_seed(0)) + 1
    residual[200, 3] = 5000.0
    massive = MassiveActivations(1)
    massive.update(ResidualBlock(0, 0, residual))
    row = massive.table().iloc[0]
    spaced = residual[[*range(0, 300, 3)]].flatten().tolist()
    assert row["times_median"] == pytest.approx(5000.0 / median_low(spaced), rel=1e-6)
    assert (row["position"], row["dimension"], row["massive"]) == (200, 3, 1.0)


def test_massive_means_large_and_a_thousand_times_the_median() -> None:
    statistic = MassiveActivations(1)
    residual = torch.full((4, 8), 0.1)
    residual[2, 5] = -150
    statistic.update(ResidualBlock(0, 0, residual))
    statistic.update(ResidualBlock(0, 1, residual / 2))  # 75 is not above 100
    row = statistic.table().iloc[0]
    assert (row["largest"], row["passage"], row["position"], row["dimension"], row["massive"]) == (
        150,
        0,
        2,
        5,
        0.5,
    )
    assert row["times_median"] == pytest.approx(1500)
    pd.testing.assert_frame_equal((statistic + MassiveActivations(1)).table(), statistic.table())
