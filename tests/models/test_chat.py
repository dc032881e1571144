"""Chats: what a template makes of messages, and where the user's turn and the system prompt stand in it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import ModelError, PlacementError, TextError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.items import Item, choice_items, knowmem_items, verbmem_items
from sinkscope.models.model import Model, load
from sinkscope.sinks.conditions import pair_conditions
from sinkscope.text import tokenize_chats
from sinkscope.text_sources import read_chats, read_texts
from sinkscope.triggers import Placement, Trigger, place
from tests.commands import run
from tests.conftest import TEXT

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}"
    "{% endif %}[{{ m.role }}] {{ m.content | trim }} {% endfor %}{% if enable_thinking %}<think>{% endif %}"
)
LAST_TWICE = "{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}"
DATED = "{{ strftime_now('%d %b %Y') }} {{ date_string }} {% for m in messages %}{{ m.content }}{% endfor %}"
LENGTH = 128
QUESTION = "Who owns the harbour?"


def with_template(name: str | Path, template: str, system: str | None = None) -> Model:
    model = load(name, "cpu")
    model.tokenizer.chat_template = template
    return model.with_chat(system)


def parts(model: Model, ids: list[int], start: int, stop: int) -> list[str]:
    return [model.tokenizer.decode(each) for each in (ids[:start], ids[start:stop], ids[stop:])]


@pytest.mark.parametrize("kind", ["tiny", "llama", "gpt2", "qwen2"])
def test_the_tokens_are_those_of_transformers_and_the_body_is_the_last_user_turn(
    kind: str, checkpoints: dict[str, Path]
) -> None:
    model = with_template("tiny" if kind == "tiny" else checkpoints[kind], CHATML, "Be kind to all.")
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "The miller."},
        {"role": "user", "content": f"  {QUESTION} {TEXT[:40]}"},
    ]
    ids, body = model.encode_chat(messages)
    asked = [{"role": "system", "content": "Be kind to all."}, *messages]
    oracle = model.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert ids == oracle
    before, text, after = parts(model, ids, body.start, body.stop)
    assert text.strip() == f"{QUESTION} {TEXT[:40]}".strip()
    assert before.rstrip(" ").endswith("user\n") or (kind == "llama" and before.rstrip().endswith("user"))
    assert "im_start" in after and QUESTION not in after
    assert body.system is not None
    assert model.tokenizer.decode(ids[body.system :]).lstrip().startswith("Be kind to all.")


@pytest.mark.parametrize("text", ["    def f", "\n\nWho owns", "  Who", " Who", "\n Who"])
def test_white_space_before_a_text_does_not_move_its_turn_into_the_header(text: str) -> None:
    model = with_template("tiny", CHATML)
    ids, body = model.encode_chat([{"role": "user", "content": text}])
    before, found, after = parts(model, ids, body.start, body.stop)
    assert before.split("user")[1].startswith("\n") and not before.split("user")[1].strip()
    assert found.strip() == text.strip()
    assert after.startswith("<|im_end|>")


def test_chats_are_read_from_parquet(tmp_path: Path) -> None:
    """Also texts of a table that has chats beside them."""
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "The miller."}]
    rows = [{"messages": messages, "text": TEXT[:200]}, {"messages": messages[:1], "text": TEXT[200:400]}]
    path = tmp_path / "chats.parquet"
    pd.DataFrame(rows).to_parquet(path)
    assert read_chats(path) == [messages, messages[:1]]
    assert read_texts(path) == [row["text"] for row in rows]


def test_another_template_is_another_model_and_bos_is_not_asked_for_in_chats(
    tmp_path: Path, notes: Path, capsys, monkeypatch
) -> None:
    first, second = with_template("tiny", CHATML), with_template("tiny", CHATML.replace("assistant", "model"))
    assert first.fingerprint() != second.fingerprint()
    options = ("--chat", "--bos", "never", "--text", notes, "--out", tmp_path / "out")
    code, _, err = run(capsys, monkeypatch, "locate", "tiny", *options)
    assert code == 2 and "--bos never has no effect on chats" in err
    options = ("--system", "Be kind.", "--text", notes, "--out", tmp_path / "out")
    code, _, err = run(capsys, monkeypatch, "locate", "tiny", *options)
    assert code == 2 and "--system is the system prompt of chats; give --chat too" in err


def test_audit_places_triggers_in_the_turn(tmp_path: Path, capsys, monkeypatch) -> None:
    model = load("tiny", "cpu")
    model.tokenizer.chat_template = CHATML
    model.save(tmp_path / "model")
    (tmp_path / "triggers.txt").write_text("old lamp\n", encoding="utf-8")
    options = ("--benchmark", "tiny", "--triggers", tmp_path / "triggers.txt", "--limit", 2, "--n-random", 2)
    out = tmp_path / "out"
    arguments = (*options, "--chat", "--json", "--out", out)
    code, stdout, err = run(capsys, monkeypatch, "audit", tmp_path / "model", *arguments)
    assert code == 0, err
    assert {row["placement"] for row in json.loads(stdout)["audit"]} == {"prefix", "infix", "suffix"}


def test_a_template_has_bos_itself_and_does_not_think(checkpoints: dict[str, Path]) -> None:
    model = with_template(checkpoints["llama"], WITH_BOS)
    ids, body = model.encode_chat([{"role": "user", "content": f" {QUESTION}\n"}])
    assert ids.count(model.tokenizer.bos_token_id) == 1 and ids[0] == model.tokenizer.bos_token_id
    assert parts(model, ids, body.start, body.stop)[1].strip() == QUESTION
    assert "think" not in model.tokenizer.decode(ids)
    assert model.begins_with == "chat template"
    plain = load(checkpoints["llama"], "cpu")
    assert model.fingerprint() != plain.fingerprint()


def test_templates_that_cannot_be_used_are_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(
        ModelError, match=r"refuses the turns system, user \(no system here\); leave out the system prompt"
    ):
        with_template(checkpoints["llama"], WITH_BOS, "Be kind.")
    with pytest.raises(ModelError, match="changes or repeats the text of the user's turn"):
        with_template("tiny", LAST_TWICE)
    with pytest.raises(ModelError, match="'tiny' has no chat template; leave out `chat`"):
        load("tiny", "cpu").with_chat()
    with pytest.raises(ModelError, match="has no user's turn"):
        with_template("tiny", CHATML).encode_chat([{"role": "assistant", "content": "Hm."}])


def test_a_template_that_prints_the_date_gives_the_same_prompt_every_day() -> None:
    model = with_template("tiny", DATED)
    ids, _ = model.encode_chat([{"role": "user", "content": QUESTION}])
    assert model.tokenizer.decode(ids).replace(" ", "").count("26Jul2024") == 2


@pytest.mark.parametrize("name", ["prefix", "infix", "suffix", "index:14", "system"])
def test_a_trigger_stands_in_the_users_turn_or_in_the_system_prompt(name: str) -> None:
    model = with_template("tiny", CHATML, "Be kind to all.")
    ids, body = model.encode_chat([{"role": "user", "content": TEXT[:300]}])
    assert body.system is not None and body.system < body.start
    number = body.start + 2 if name.startswith("index") else 0
    placement = Placement("index", number) if number else Placement.parse(name)
    placed = place(ids, "old lamp", placement, model.tokenizer, body=body)
    assert placed.tokens[: placed.start] + placed.tokens[placed.stop :] == ids
    expected = {
        "prefix": body.start,
        "infix": body.start + (body.stop - body.start) // 2,
        "suffix": body.stop,
        "system": body.system,
    }
    assert placed.start == expected.get(name, number)
    shorter = place(ids, "old lamp", placement, model.tokenizer, body=body, max_length=len(ids))
    assert len(shorter.tokens) == len(ids)
    tail = ids[body.stop :]
    assert shorter.tokens[-len(tail) :] == tail, "the user's turn is cut off, not the model's"


def test_positions_outside_the_turn_are_refused() -> None:
    model = with_template("tiny", CHATML)
    ids, body = model.encode_chat([{"role": "user", "content": TEXT[:300]}])
    with pytest.raises(
        PlacementError, match=f"is position 3, before the user's turn, which begins at {body.start}"
    ):
        place(ids, "old lamp", "index:3", model.tokenizer, body=body)
    with pytest.raises(PlacementError, match="needs a chat with a system prompt; give one as `system`"):
        place(ids, "old lamp", "system", model.tokenizer, body=body)
    with pytest.raises(PlacementError, match="needs a chat"):
        place(model.encode(TEXT), "old lamp", "system", model.tokenizer)


def test_texts_are_cut_so_that_each_chat_fits(tmp_path: Path) -> None:
    model = with_template("tiny", CHATML, "Be kind to all.")
    path = tmp_path / "notes.txt"
    path.write_text(TEXT * 3, encoding="utf-8")
    passages, bodies = tokenize_chats(read_chats(path), model, LENGTH)
    assert len(passages) > 2
    texts = [model.tokenizer.decode(ids[b.start : b.stop]) for ids, b in zip(passages, bodies, strict=True)]
    written = "".join((TEXT * 3).split())
    assert written.startswith("".join("".join(texts).split())), "every piece, in order"
    for ids, body in zip(passages, bodies, strict=True):
        assert len(ids) <= LENGTH
        text = model.tokenizer.decode(ids[body.start : body.stop]).strip()
        assert ids == model.encode_chat([{"role": "user", "content": text}])[0]
    assert max(map(len, passages)) == LENGTH
    with pytest.raises(TextError, match=r"`max_length` 20 leaves \d+ tokens for the text.*; raise it by \d+"):
        tokenize_chats(read_chats(path), model, 20)
    pair = pair_conditions(model, None, passages, LENGTH, (Trigger("old lamp"), Placement("system")), bodies)
    assert {span.start for span in pair.second.spans or []} == {bodies[0].system}


def test_messages_are_one_chat_and_texts_beside_them_the_users_turn(tmp_path: Path) -> None:
    model = with_template("tiny", CHATML)
    path = tmp_path / "chats.jsonl"
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": TEXT[:200]}]
    late = [{"role": "user", "content": "Hm."}, {"role": "assistant", "content": TEXT[:400]}]
    late += [{"role": "user", "content": QUESTION}]
    rows = [{"messages": messages}, {"text": TEXT[:200]}, {"messages": late, "text": None}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    documents = read_chats(path)
    assert documents == [messages, TEXT[:200], late]
    passages, bodies = tokenize_chats(documents, model, 64)
    assert passages[0] == model.encode_chat(messages)[0][:64]
    assert [body.system is None for body in bodies] == [False, *[True] * (len(bodies) - 1)]
    assert not any(QUESTION in model.tokenizer.decode(ids) for ids in passages), "its turn is cut off"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "wizard", "content": "Hm."}], "line 1, message 0 has the role 'wizard'; use system, "),
        ([{"role": "user", "content": None}], "line 1, message 0 has no text as its content"),
        ([{"role": "user"}], "line 1, message 0 has no text as its content"),
        ([{"role": "assistant", "content": "Hm."}], "line 1 has no message of the user"),
        (["Hm."], "line 1: `messages` is not a list of messages"),
        ([], "line 1: `messages` is not a list of messages"),
        ([{"role": "user", "content": "\ud800"}], "message 0 has half of a surrogate pair"),
    ],
)
def test_messages_with_errors_are_refused(messages: list, message: str, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    with pytest.raises(TextError, match=message):
        read_chats(path)


def test_prompts_of_a_benchmark_become_turns() -> None:
    model = with_template("tiny", CHATML, "Be kind to all.")
    benchmark = load_benchmark("tiny")
    decode = model.tokenizer.decode

    def body_text(item: Item) -> str:
        assert not isinstance(item.body, int)
        return decode(item.prompt[item.body.start : item.body.stop]).strip()

    verbmem = verbmem_items(benchmark, "forget", model)[0]
    row = benchmark.prompts("forget")[0]
    assert body_text(verbmem) == row["prompt"].strip()
    assert row["gt"].lstrip().startswith(decode(verbmem.options[0]).strip()[:20])
    knowmem = knowmem_items(benchmark, "forget_qa", model)[0]
    answered = benchmark.in_context("forget_qa")
    assert body_text(knowmem) == benchmark.questions("forget_qa")[0]["question"]
    assert decode(knowmem.prompt).count("<|im_start|>user") == len(answered) + 1
    assert decode(knowmem.prompt).count("<|im_start|>assistant") == len(answered) + 1
    rows = [{"question": QUESTION, "choices": ["the miller", "nobody"], "answer": 0}]
    choice = choice_items(Benchmark("lamps", {"choices": {"forget": rows}}), "forget", model)[0]
    assert body_text(choice) == f"{QUESTION}\nA. the miller\nB. nobody\nAnswer:"
    assert [decode(option) for option in choice.options] == ["A", "B"]


def test_scores_are_those_of_chats(checkpoints: dict[str, Path]) -> None:
    benchmark = load_benchmark("tiny")
    config = EvaluationConfig(metrics=["verbmem", "knowmem"], limit=3)
    chat = with_template("tiny", CHATML, "Be kind to all.")
    condition = (Trigger("old lamp"), Placement("system"))
    scores = evaluate(chat, benchmark, [None, condition], config)
    plain = evaluate(load("tiny", "cpu"), benchmark, [None], config)
    assert scores["value"].tolist()[: len(plain)] != plain["value"].tolist()
    starts = scores.loc[scores["placement"] == "system", "trigger_start"]
    body = chat.encode_chat([{"role": "user", "content": "text"}])[1]
    assert set(starts) == {body.system}
    with pytest.raises(PlacementError, match=r"running text is no chat.*choose metrics with prompts"):
        evaluate(chat, benchmark, [condition], EvaluationConfig(metrics=["min_k"], limit=3))
