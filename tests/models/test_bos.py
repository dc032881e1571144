"""BOS before texts: as the tokenizer does by itself, always, or never."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import processors

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import ModelError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate, evaluate_to_directory
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.models.bos import bos_id, describe_bos, set_bos
from sinkscope.models.model import Model, load
from sinkscope.sinks.locate import locate
from sinkscope.text import tokenize_passages
from sinkscope.triggers import place
from tests.conftest import FAMILIES, TEXT, saved_tokenizer


@pytest.mark.parametrize("kind", FAMILIES)
def test_auto_is_what_the_tokenizer_does(kind: str, small_models: dict[str, Model]) -> None:
    """Declared in all but qwen2, and put before texts by llama alone."""
    model = small_models[kind]
    assert model.encode("the harbour") == model.tokenizer("the harbour")["input_ids"]
    assert (model.bos_id is None) == (kind != "llama")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_saved_model_keeps_what_was_asked_for(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    fingerprints = set()
    for bos in ("always", "never"):
        model = load(checkpoints[kind], "cpu", bos=bos)
        model.save(tmp_path / bos)
        again = load(tmp_path / bos, "cpu")
        assert model.bos_id == again.bos_id == (again.tokenizer.bos_token_id if bos == "always" else None)
        assert again.tokenizer("the harbour")["input_ids"] == model.encode("the harbour")
        assert describe_bos(again.tokenizer) == (
            f"BOS {again.tokenizer.bos_token}" if bos == "always" else "no BOS"
        )
        fingerprints.add(model.fingerprint())
    assert len(fingerprints) == 2


def test_other_tokens_before_and_behind_a_text(tmp_path: Path) -> None:
    """EOS before each text, as in XGLM; EOS behind, as in T5; two tokens before, as in GLM-4."""
    tokenizer = saved_tokenizer("llama", tmp_path)
    special = [("<s>", 1), ("</s>", 2)]
    for template, expected in (("</s> $A", 2), ("$A </s>", None), ("<s> $A </s>", 1), ("<s> </s> $A", None)):
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=special
        )
        assert bos_id(tokenizer) == expected


def test_without_bos_a_trigger_stands_on_the_first_position(checkpoints: dict[str, Path]) -> None:
    model = load(checkpoints["llama"], "cpu", bos="never")
    tokens = model.encode(TEXT)
    placed = place(tokens, "harbour", "prefix", model.tokenizer)
    assert placed.start == 0
    assert placed.tokens[placed.stop :] == tokens
    sinks = locate(model, [placed.tokens])
    assert sinks.summary()["bos"] == "no BOS"


def test_scores_and_passages_follow_it(checkpoints: dict[str, Path]) -> None:
    scores = {}
    for bos in ("always", "never"):
        model = load("tiny", "cpu", bos=bos)
        (passage, *_) = tokenize_passages([TEXT], model, 16)
        assert (passage[0] == model.tokenizer.bos_token_id) == (bos == "always")
        table = evaluate(model, load_benchmark("tiny"), config=EvaluationConfig(metrics=["verbmem"], limit=4))
        scores[bos] = table["value"].tolist()
    assert scores["always"] != scores["never"]


def test_what_cannot_be_asked_for_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="has no BOS token; leave out `bos`, or use never"):
        load(checkpoints["qwen2"], "cpu", bos="always")
    with pytest.raises(ModelError, match="'sometimes' is unknown; use auto, always or never"):
        load(checkpoints["qwen2"], "cpu", bos="sometimes")  # type: ignore[arg-type]
    set_bos("name", load(checkpoints["qwen2"], "cpu").tokenizer, "never")  # it puts none anyway


def test_a_retain_model_with_other_bos_is_refused(tmp_path: Path) -> None:
    """Their likelihoods are of other tokens."""
    benchmark = load_benchmark("tiny")
    models = load("tiny", "cpu", bos="never"), load("tiny-retrained", "cpu")
    config = EvaluationConfig(metrics=["min_k"], limit=2, retain_model=models[1])
    subject = EvaluatedModel("tiny", "target", models[0])
    with pytest.raises(
        ModelError, match=r"begins texts in another way \(BOS\) than .* so privleak cannot compare them"
    ):
        evaluate_to_directory(tmp_path / "out", subject, benchmark, [None], config)
    assert not (tmp_path / "out").exists()
