"""Masked keys and scaled values: against masks and hooks given to the plain model by hand."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch

from sinkscope.errors import ModelError, PlacementError
from sinkscope.evaluation.requests import PositionMask
from sinkscope.models.attention import mask_keys, scale_values
from sinkscope.models.inference import generate
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence
from tests.conftest import saved_tokenizer
from tests.sinks.architectures import build
from tests.sinks.families import network

TOKENS = torch.randint(3, 400, (2, 30), generator=torch.Generator().manual_seed(1))
WINDOWED = ("gemma2", "gemma3", "gpt_oss")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


def by_hand(model: Model, ids: torch.Tensor, masked: list[int]) -> torch.Tensor:
    """Logits of the plain model under an additive mask, written out number by number."""
    plain = copy.deepcopy(model.hf)
    plain.set_attn_implementation("eager")
    size = ids.shape[1]
    masks = {}
    for kind, window in (("full_attention", size), ("sliding_attention", 9)):
        mask = torch.full((1, 1, size, size), torch.finfo(torch.float32).min)
        for query in range(size):
            for key in range(size):
                if key <= query and query - key < window and (key not in masked or key == query):
                    mask[0, 0, query, key] = 0
        masks[kind] = mask.expand(len(ids), 1, size, size)
    with torch.no_grad():
        mask = masks if model.name in WINDOWED else masks["full_attention"]
        return plain(ids, attention_mask=mask, position_ids=torch.arange(size)[None]).logits


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "neox", "opt", "phi", *WINDOWED])
def test_masked_keys_equal_a_mask_by_hand(kind: str, tokenizer) -> None:
    model = Model(kind, network(kind), tokenizer)
    before = model.hf.config._attn_implementation
    with torch.no_grad(), mask_keys(model, [0, 3, 4]):
        logits = model.hf(TOKENS).logits
    torch.testing.assert_close(logits, by_hand(model, TOKENS, [0, 3, 4]), atol=1e-4, rtol=1e-4)
    assert model.hf.config._attn_implementation == before
    assert not torch.allclose(logits, by_hand(model, TOKENS, []), atol=1e-2)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gemma3"])
def test_generation_with_a_cache_equals_whole_forward_passes(kind: str, tokenizer) -> None:
    model = Model(kind, network(kind), tokenizer)
    ids = TOKENS[:1, :12]
    for _ in range(6):
        ids = torch.cat([ids, by_hand(model, ids, [0, 1, 5])[:, -1:].argmax(-1)], 1)
    text = generate(model, [TOKENS[0, :12].tolist()], 6, masked=[[0, 1, 5]])[0]
    assert text == tokenizer.decode(ids[0, 12:].tolist(), skip_special_tokens=True)
    assert text != generate(model, [TOKENS[0, :12].tolist()], 6)[0]


def test_positions_count_from_the_first_real_token_in_a_padded_batch(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)
    prompts = [TOKENS[0, :20].tolist(), TOKENS[1, :11].tolist(), TOKENS[1, 3:19].tolist()]
    masked = [[0, 2], [4], []]
    together = generate(model, prompts, 8, masked=masked, batch_size=3)
    one_by_one = [
        generate(model, [prompt], 8, masked=[rows])[0] for prompt, rows in zip(prompts, masked, strict=True)
    ]
    assert together == one_by_one


def test_layers_are_chosen_and_values_scaled_as_by_a_hook(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)

    def scale(module, inputs, output):
        output = output.clone()
        output[:, [0, 7]] *= 0.25
        return output

    handle = model.hf.model.layers[1].self_attn.v_proj.register_forward_hook(scale)
    with torch.no_grad():
        expected = model.hf(TOKENS).logits
    handle.remove()
    with torch.no_grad(), scale_values(model, [0, 7], 0.25, layers=[1]):
        logits = model.hf(TOKENS).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["inkling_text", "zamba2"])  # a position bias; a module that layers share
def test_attention_of_other_kinds_is_the_models_own_but_for_the_intervention(name: str, tokenizer) -> None:
    model = Model(name, build(name), tokenizer)
    ids = TOKENS[:, :20]
    with torch.no_grad():
        own = model.hf(ids).logits
        with scale_values(model, [3], 1.000001):
            nearly_own = model.hf(ids).logits
        with mask_keys(model, [3]):
            masked = model.hf(ids).logits
    torch.testing.assert_close(nearly_own, own, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(masked[:, :4], own[:, :4], atol=1e-4, rtol=1e-4)
    assert (masked[:, 4:] - own[:, 4:]).abs().amax(-1).min() > 1e-3


def test_layers_that_share_a_module_are_told_apart(tokenizer) -> None:
    model = Model("zamba2", build("zamba2"), tokenizer)
    with torch.no_grad():
        found = []
        for layers in ([0], [2], [0, 2]):
            with mask_keys(model, [3], layers=layers):
                found.append(model.hf(TOKENS[:, :20]).logits)
    for first, second in combinations(found, 2):
        assert (first - second).abs().max() > 1e-3


def test_an_intervention_that_changes_nothing_is_an_error(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)
    for arguments in (([99],), ([0], [])):
        positions, *layers = arguments
        with (
            pytest.raises(ModelError, match="changed nothing"),
            torch.no_grad(),
            mask_keys(model, positions, layers=layers[0] if layers else None),
        ):
            model.hf(TOKENS)
    with pytest.raises(ModelError, match="changed nothing"), torch.no_grad(), scale_values(model, [0], 1.0):
        model.hf(TOKENS)
    with (
        pytest.raises(ModelError, match="does not attend through"),
        mask_keys(Model("bloom", network("bloom"), tokenizer), [0]),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match="own"),
        mask_keys(model, [0]),
    ):  # the body's error is not covered up
        raise RuntimeError("its own")
    assert model.hf.config._attn_implementation == "sdpa"


def test_position_masks_give_positions(small_llama: Model) -> None:
    tokens = small_llama.with_bos(list(range(10, 40)))
    clean, triggered = TriggeredSequence(tokens, 0, 0), TriggeredSequence(tokens, 3, 6)
    assert PositionMask.parse("shallow:8").positions(small_llama, clean) == list(range(8))
    assert PositionMask.parse("positions:9,4,4").positions(small_llama, clean) == [4, 9]
    assert PositionMask.parse("span").positions(small_llama, triggered) == [3, 4, 5]
    assert PositionMask.parse("span").positions(small_llama, clean) == []
    assert len(PositionMask.parse("sinks:3").positions(small_llama, clean)) == 3
    assert [str(PositionMask.parse(text)) for text in ("shallow:8", "span", "positions:4,9")] == [
        "shallow:8",
        "span",
        "positions:4,9",
    ]
    for text in ("shallow", "shallow:0", "sinks:-1", "positions:", "span:2", "everything"):
        with pytest.raises(
            PlacementError, match=r"is unknown; use shallow:8, sinks:3, span or positions:4,9"
        ):
            PositionMask.parse(text)
    with pytest.raises(PlacementError, match="exceeds a prompt of 31 tokens"):
        PositionMask.parse("shallow:99").positions(small_llama, clean)
