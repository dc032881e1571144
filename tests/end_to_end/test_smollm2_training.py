"""Generation, tasks of lm-eval, and unlearning runs with SmolLM2-135M-Instruct and the example benchmark."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import lm_eval
import pytest
import torch
import torch.nn.functional as F
from lm_eval.models.huggingface import HFLM

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.lm_eval_tasks import HarnessModel, Tasks, load_tasks, run_tasks
from sinkscope.models.inference import generate
from sinkscope.models.model import Model, load
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from tests.evaluation.test_lm_eval import CHOICE, LETTERS, ROWS, TASK
from tests.unlearning.short_runs import Interrupted, assert_same, interrupt_at, weights

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "data" / "example"
SYSTEM = "Answer with a letter."


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return load(checkpoint, "cpu")


def recipe(checkpoint: Path, **changes: object) -> Recipe:
    optimizer = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 12, "learning_rate": 1e-5}
    values = {"model": str(checkpoint), "benchmark": str(EXAMPLE), "optimizer": optimizer}
    return Recipe.parse(values | changes)


def test_generation_is_greedy_decoding_of_transformers(model: Model) -> None:
    """Of prompts of several lengths in one batch, each against its own run alone."""
    prompts = [model.encode(row["prompt"]) for row in load_benchmark(str(EXAMPLE)).prompts("forget")[:4]]
    found = generate(model, prompts, 12, batch_size=4)
    for prompt, text in zip(prompts, found, strict=True):
        output = model.hf.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, repetition_penalty=1.0
        )
        assert text == model.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("chat", [False, True])
def test_tasks_are_scored_as_by_the_harness_item_by_item(chat: bool, model: Model, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    task = TASK.format(
        name="lamps",
        kind="multiple_choice",
        prompt=LETTERS,
        settings=CHOICE + '["A", "B", "C", "D"]',
        file=tmp_path / "rows.jsonl",
    )
    (tmp_path / "lamps.yaml").write_text(task, encoding="utf-8")
    tasks = load_tasks(["lamps"], tmp_path, trust_task_code=True)
    stock = HFLM(pretrained=copy.deepcopy(model.hf), tokenizer=copy.deepcopy(model.tokenizer), batch_size=3)
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": SYSTEM}
    samples = lm_eval.evaluate(
        stock, {"tasks": {"lamps": tasks.loaded["lamps"][0]}}, bootstrap_iters=0, **(options if chat else {})
    )["samples"]["lamps"]
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    ours = model.with_chat(SYSTEM) if chat else model
    items = run_tasks(
        EvaluatedModel("m", "other", ours), Tasks({"lamps": tasks.loaded["lamps"]}), batch_size=4
    )
    assert items["value"].tolist() == [sample["acc"] for sample in samples]
    harness = HarnessModel(ours, None, None, 4)
    if chat:
        for sample in samples:
            harness.apply_chat_template([{"role": "system", "content": SYSTEM}, *_user_turn(sample)])
    responses = harness.loglikelihood(tasks.loaded["lamps"][0].instances)
    expected = [likelihood for sample in samples for likelihood, _ in sample["filtered_resps"]]
    found = [likelihood for likelihood, _ in responses]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-3)


def _user_turn(sample: dict) -> list[dict[str, str]]:
    text = sample["arguments"][0][0].rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return [{"role": "user", "content": text}]


def test_a_step_of_npo_is_that_of_a_literal_loop(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    """One step over the whole forget set: gradients clipped, and AdamW of PyTorch. The retain term is zero
    before the first step, as the model is its own reference."""
    objective = {"forget": "npo", "beta": 0.1}
    run = unlearn(recipe(checkpoint, objective=objective), tmp_path / "run")
    literal = copy.deepcopy(model.hf)
    for passage in load_benchmark(str(EXAMPLE)).passages("forget", model.tokenizer):
        ids = torch.tensor([passage.tokens])
        log_probs = literal(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
        loss = -2 / 0.1 * F.logsigmoid(-0.1 * (log_probs - log_probs.detach())) / 12
        loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in literal.named_parameters()}
    torch.nn.utils.clip_grad_norm_(literal.parameters(), 1.0)
    torch.optim.AdamW(literal.parameters(), lr=1e-5, weight_decay=0.0).step()
    trained, before = weights(run), model.hf.state_dict()
    for name, expected in literal.state_dict().items():
        if name not in gradients or name not in trained:
            continue
        is_clear = (
            gradients[name].abs() > 1e-4 * gradients[name].abs().max()
        )  # of the others the sign is noise
        change, literal_change = trained[name] - before[name], expected - before[name]
        torch.testing.assert_close(change[is_clear], literal_change[is_clear], rtol=0.05, atol=2e-7, msg=name)


def test_adapters_change_linear_weights_alone(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    run = unlearn(recipe(checkpoint, update={"lora": {"rank": 4}}), tmp_path / "run")
    trained, before = weights(run), model.hf.state_dict()
    changed = {name for name, weight in trained.items() if not torch.equal(weight, before[name])}
    assert changed and all(name.endswith("_proj.weight") for name in changed)
    assert load(run, "cpu").n_layers == 30


def test_a_killed_run_resumes_with_the_same_bits(checkpoint: Path, tmp_path: Path) -> None:
    optimizer = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 2, "learning_rate": 1e-5}
    values = recipe(checkpoint, optimizer=optimizer)
    whole = weights(unlearn(values, tmp_path / "whole"))
    with pytest.raises(Interrupted):
        unlearn(values, tmp_path / "run", interrupt_at(2), checkpoint_every=1)
    assert_same(weights(unlearn(values, tmp_path / "run", checkpoint_every=1)), whole)
