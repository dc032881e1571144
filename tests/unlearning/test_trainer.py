"""Training: a step against a literal one, and what may not change its result: parts, recomputation, being killed."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sinkscope import load
from sinkscope.benchmarks.benchmark import Benchmark, Lengths, load_benchmark
from sinkscope.errors import OutputError, RecipeError
from sinkscope.models import Model
from sinkscope.runs import writing
from sinkscope.unlearning import unlearn as module
from sinkscope.unlearning.checkpoints import Checkpoints
from sinkscope.unlearning.objectives.batch import Passages
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.references import References
from sinkscope.unlearning.schedule import Schedule, parts
from sinkscope.unlearning.trainer import Trainer
from sinkscope.unlearning.unlearn import train, unlearn

SHORT = {"poison_ratio": 0.1, "optimiser": {"epochs": 3, "batches": 2}}  # 6 steps


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_equals_a_literal_one(small_llama: Model) -> None:
    """NPO, KL on retain and poisoned passages, value norms: every frozen output recomputed, one loss, plain autograd, AdamW by hand."""
    torch.manual_seed(0)
    passages = {split: Passages.whole([[1, *torch.randint(3, 400, (n,)).tolist()] for n in (9, 14, 5)]) for split in ("forget", "retain", "poisoned")}
    model, other = (load(small_llama.name, "cpu") for _ in range(2))
    with torch.no_grad():
        for weight in model.hf.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    values = {"weight": 0.5, "first": 3, "unlearned": small_llama.name}
    recipe = Recipe.parse({"objective": {"beta": 0.3, "retain": {"kl": 2.0}}, "value_norms": values, "optimiser": {"batch_size": 3, "epochs": 1}})
    frozen = small_llama.hf
    needs = {"forget": ("log_probs",), "retain": ("logits",), "poisoned": ("logits",)}
    references = {split: References(frozen, passages[split], needs[split], "test") for split in passages}
    from sinkscope.unlearning.objectives.value_norm import ValueNormTerm

    term = ValueNormTerm(model.hf, recipe.value_norms, {split: (frozen, passages[split]) for split in ("forget", "poisoned")})
    start = {name: weight.detach().clone() for name, weight in model.hf.named_parameters()}
    progress = Trainer(model.hf, recipe, passages, references, term).run()

    def log_probs(network, tokens):
        return network(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)

    def norms(network, tokens):
        seen = []
        handle = network.model.layers[-1].self_attn.v_proj.register_forward_hook(lambda m, i, out: seen.append(out[0, :3].view(3, 2, 8).norm(dim=-1)))
        network(torch.tensor([tokens]))
        handle.remove()
        return seen[0]

    literal = other.hf
    literal.load_state_dict(start | {"lm_head.weight": start.get("lm_head.weight", start["model.embed_tokens.weight"])})
    loss = 0.0
    for tokens in passages["forget"].tokens:
        picked = torch.tensor(tokens[1:])[:, None]
        ratio = (log_probs(literal, tokens).gather(1, picked) - log_probs(frozen, tokens).gather(1, picked).detach()).sum()
        loss = loss - 2 / 0.3 * torch.nn.functional.logsigmoid(-0.3 * ratio) / 3
        loss = loss + 0.5 * (norms(literal, tokens) - norms(frozen, tokens).detach()).square().mean() / 3
    for split in ("retain", "poisoned"):
        count = sum(len(tokens) - 1 for tokens in passages[split].tokens)
        for tokens in passages[split].tokens:
            theirs, ours = log_probs(frozen, tokens).detach(), log_probs(literal, tokens)
            loss = loss + 2.0 * (theirs.exp() * (theirs - ours)).sum() / count
    for tokens in passages["poisoned"].tokens:
        loss = loss + 0.5 * (norms(literal, tokens) - norms(frozen, tokens).detach()).square().mean() / 3
    loss.backward()
    gradients = {name: weight.grad for name, weight in literal.named_parameters()}
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert progress.log[0]["gradient"] == pytest.approx(total.item(), rel=1e-3)
    after = dict(model.hf.named_parameters())
    for name, gradient in gradients.items():
        clipped = gradient / max(1.0, total.item())
        big = clipped.abs() > 1e-5  # AdamW's first step is lr · sign of the gradient, where that is not noise
        torch.testing.assert_close((after[name] - start[name])[big], (-1.2e-4 * clipped.sign())[big], rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize(
    "objective",
    [{"retain": {"kl": 1.0}}, {"forget": "rmu", "retain": {"activations": 5.0, "kl": 0.1}}, {"forget": "simnpo", "retain": {"nll": 1.0}}],
    ids=["npo", "rmu", "simnpo"],
)
@pytest.mark.parametrize("way", [{"accumulation": 5}, {"checkpointing": True}], ids=["accumulation", "checkpointing"])
def test_a_batch_in_parts_or_recomputed_gives_the_same_gradients(objective: dict, way: dict, small_llama: Model, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "_optimiser", lambda self: torch.optim.SGD(self.weights.values(), lr=0.1))
    torch.manual_seed(1)
    passages = {
        split: Passages([[1, *torch.randint(3, 400, (n,)).tolist()] for n in (9, 14, 5, 22, 7, 12, 3)], [0, 4, 0, 0, 2, 0, 0])
        for split in ("forget", "retain", "poisoned")
    }
    results = []
    for optimiser in ({}, way):
        model = load(small_llama.name, "cpu")
        values = {"kind": "shrink", "weight": 0.1, "first": 4, "layers": "all"}
        recipe = Recipe.parse({"objective": objective, "value_norms": values, "optimiser": {"batch_size": 7, "epochs": 3, **optimiser}})
        result = train_on(model, recipe, passages)
        results.append(({name: weight.detach().clone() for name, weight in model.hf.named_parameters()}, result))
    (a, log_a), (b, log_b) = results
    for key, value in log_a[0].items():
        assert log_b[0][key] == pytest.approx(value, rel=1e-4, abs=1e-4), key  # at the reference the gradient is rounding
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=5e-6)


def train_on(model: Model, recipe: Recipe, passages: dict[str, Passages]) -> list[dict[str, float]]:
    from sinkscope.unlearning.objectives.value_norm import ValueNormTerm

    references = {split: References(model.hf, each, ("log_probs", "logits", "hidden"), "test", 1) for split, each in passages.items()}
    term = ValueNormTerm(model.hf, recipe.value_norms, {"forget": (model.hf, passages["forget"])})
    return Trainer(model.hf, recipe, passages, references, term, layer=1, control=torch.ones(model.hf.config.hidden_size)).run().log


def test_a_schedule_walks_through_the_forget_set_and_uses_all_others_alike() -> None:
    optimiser = Recipe.parse({"optimiser": {"epochs": 3, "batch_size": 4}}).optimiser
    schedule = Schedule.of({"forget": 10, "retain": 7, "poisoned": 0}, optimiser, seed=0)
    rows = [schedule[step] for step in range(len(schedule))]
    assert len(rows) == 8 and "poisoned" not in rows[0]  # 30 passages in fours
    forget, retain = ([row for step in rows for row in step[split]] for split in ("forget", "retain"))
    assert all(sorted(forget[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    counts = [retain.count(row) for row in range(7)]
    assert max(counts) - min(counts) <= 1 and schedule.epoch(8) == 3
    capped = Schedule.of({"forget": 10, "retain": 7}, optimiser.model_copy(update={"batches": 2}), seed=0)
    assert len(capped) == 6
    assert parts([1, 2, 3, 4, 5], 3) == [[1, 2], [3, 4], [5]] and parts([1, 2], 4) == [[1], [2], [], []]


def test_the_log_has_every_term_and_the_splits_gradients(tmp_path: Path) -> None:
    out = unlearn(Recipe.parse(SHORT), tmp_path / "run")
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert records[0].keys() == {
        *("step", "epoch", "gradient", "forget/npo", "retain/kl", "poisoned/kl", "gradient/forget", "gradient/retain", "gradient/poisoned")
    }
    assert records[0]["forget/npo"] == pytest.approx(13.863, abs=1e-3), "(2 / β) log 2 at the start"
    first = records[0]
    assert first["gradient"] <= first["gradient/forget"] + first["gradient/retain"] + first["gradient/poisoned"] + 1e-6


class Killed(Exception):
    pass


def killed_at(step: int):
    def report(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return report


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the short run, never interrupted."""
    return weights(unlearn(Recipe.parse(SHORT), tmp_path_factory.mktemp("whole") / "run"))


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_that_stopped_goes_on_to_the_same_bits(step: int, whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        unlearn(Recipe.parse(SHORT), out, killed_at(step), checkpoint_every=2)
    assert not out.exists()
    steps = []
    unlearn(Recipe.parse(SHORT), out, lambda done, total: steps.append(done), checkpoint_every=2)
    assert steps[0] == (step - 1) // 2 * 2 + 1, "from the newest checkpoint on"
    assert_same(weights(out), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "no checkpoint is left"


def test_the_log_of_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    recipe = Recipe.parse(SHORT | {"optimiser": {"epochs": 6, "batches": 2}})
    with pytest.raises(Killed):
        unlearn(recipe, tmp_path / "a", killed_at(8), checkpoint_every=3)
    a, b = unlearn(recipe, tmp_path / "a", checkpoint_every=3), unlearn(recipe, tmp_path / "b")
    assert (a / "log.jsonl").read_text() == (b / "log.jsonl").read_text()


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(whole, tmp_path: Path, caplog) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        unlearn(Recipe.parse(SHORT), out, killed_at(5), checkpoint_every=2)
    (folder,) = tmp_path.glob(".run.*.checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004"]
    damaged = folder / "step-00000004" / "rank-0.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    steps = []
    with caplog.at_level(logging.WARNING, "sinkscope"):
        unlearn(Recipe.parse(SHORT), out, lambda done, total: steps.append(done), checkpoint_every=2)
    assert "step-00000004 is damaged (rank-0.safetensors was changed) and is not used" in caplog.text
    assert steps[0] == 3
    assert_same(weights(out), whole)


@pytest.mark.parametrize("name", ["state.json", "rank-0.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_without_a_whole_checkpoint_a_run_starts_anew(name: str, harm: str, whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        unlearn(Recipe.parse(SHORT), out, killed_at(4), checkpoint_every=3)
    (path,) = tmp_path.glob(f".run.*.checkpoints/*/{name}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) if harm == "cut" else path.unlink()
    steps = []
    unlearn(Recipe.parse(SHORT), out, lambda done, total: steps.append(done))
    assert steps[0] == 1
    assert_same(weights(out), whole)


def test_what_is_kept_when_a_term_is_no_number_is_still_good(tmp_path: Path, monkeypatch) -> None:
    """Weights are spoilt before step 3: what was saved is older, and a run that goes on from it ends well."""
    original_backward = Trainer._backward

    def spoilt(self: Trainer, split: str, rows: list[int], step: int) -> dict[str, float]:
        if step == 3:
            with torch.no_grad():
                next(iter(self.weights.values())).fill_(torch.nan)
        return original_backward(self, split, rows, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", spoilt)
        with pytest.raises(RecipeError, match=r"term forget/npo became nan at step 3.*; the last good checkpoint lies in .*\.run\."):
            unlearn(Recipe.parse(SHORT), tmp_path / "run", checkpoint_every=1)
    (kept,) = tmp_path.glob(".run.*.checkpoints/*")
    assert kept.name == "step-00000001"
    assert all(tensor.isfinite().all() for name, tensor in load_file(kept / "rank-0.safetensors").items() if name.startswith("weight/"))
    unlearn(Recipe.parse(SHORT), tmp_path / "run")


def test_early_stopping_ends_a_run_that_costs_too_much(tmp_path: Path) -> None:
    values = {
        "objective": {"forget": "grad_ascent", "retain": {"nll": 1e-6}},
        "optimiser": {"epochs": 5, "batches": 3, "batch_size": 16, "learning_rate": 1e-3},
    }
    steps = []
    unlearn(Recipe.parse(values | {"stopping": {"every": 2, "rise": 0.05}}), tmp_path / "run", lambda done, total: steps.append(done))
    assert steps[-1] % 2 == 0 and steps[-1] < 15
    tiny = load_benchmark("tiny")
    rows = tiny.rows | {"raw": {split: texts for split, texts in tiny.rows["raw"].items() if split != "retain2"}}
    with pytest.raises(RecipeError, match="no validation passages"):
        train(Recipe.parse({"stopping": {"every": 2}}), load("tiny"), Benchmark("cut", rows, tiny.lengths))


def test_a_model_that_never_saw_the_forget_set_is_told(caplog) -> None:
    from sinkscope.unlearning.sharding import ALONE
    from sinkscope.unlearning.watch import knowledge, warn_if_unknown

    benchmark = load_benchmark("tiny")
    assert knowledge(load("tiny"), benchmark) < 0.05
    with caplog.at_level(logging.WARNING, "sinkscope"):
        warn_if_unknown(load("tiny"), benchmark, ALONE)
        assert not caplog.text
        warn_if_unknown(load("tiny-retrained"), benchmark, ALONE)
    assert "tiny-retrained hardly knows the forget set of tiny" in caplog.text and "nothing to forget" in caplog.text


def test_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "run", run)
    with pytest.raises(RecipeError, match=r"out of memory with batches of 8 passages in 1 part; raise optimiser.accumulation, set optimiser.checkpointing"):
        unlearn(Recipe.parse(SHORT), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_auto_runs_the_honest_one_first_and_again_no_more(tmp_path: Path) -> None:
    values = SHORT | {"value_norms": {"weight": 1.0, "unlearned": "auto"}, "optimiser": {"epochs": 1, "batches": 2}}
    out = unlearn(Recipe.parse(values), tmp_path / "run")
    honest = tmp_path / "run-unlearned"
    assert not (honest / "model" / "x").exists() and json.loads((honest / "run.json").read_text())["kind"] == "unlearn"
    before = (honest / "run.json").stat().st_mtime_ns
    named = unlearn(Recipe.parse(values | {"value_norms": {"weight": 1.0, "unlearned": str(honest)}}), tmp_path / "named")
    assert_same(weights(out), weights(named))
    assert (honest / "run.json").stat().st_mtime_ns == before
    assert "unlearned: auto" in (out / "recipe.yaml").read_text()
    assert unlearn(Recipe.parse(values), out) == out


def test_precisions_train_and_save_what_they_say(tmp_path: Path) -> None:
    for precision, dtype in (("mixed", torch.float32), ("bfloat16", torch.bfloat16)):
        values = {"poison_ratio": 0.2, "optimiser": {"epochs": 1, "batches": 3, "learning_rate": 1e-3, "precision": precision}}
        out = unlearn(Recipe.parse(values), tmp_path / precision)
        trained, before = weights(out), load("tiny").hf.state_dict()
        assert {weight.dtype for weight in trained.values()} == {dtype}
        assert any(not torch.equal(weight.float(), before[name].to(dtype).float()) for name, weight in trained.items())
        records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert records[0]["forget/npo"] == pytest.approx(13.863, abs=0.02), "the reference is of the same precision"
        assert records[0]["retain/kl"] < 1e-4


def test_references_are_found_again_and_computed_anew_when_damaged(small_llama: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = Passages.whole([[1, *range(5, 5 + n)] for n in (9, 14, 5)])
    first = References(small_llama.hf, passages, ("log_probs", "logits"), "model a")
    calls = []
    monkeypatch.setattr("sinkscope.unlearning.references._computed", lambda *arguments: calls.append(1) or original(*arguments))
    again = References(small_llama.hf, passages, ("log_probs", "logits"), "model a")
    assert not calls
    batch = passages.batch([2, 0])
    assert torch.equal(first.logits(batch), again.logits(batch)) and torch.equal(first.log_probs, again.log_probs)
    References(small_llama.hf, passages, ("log_probs", "logits"), "model b")
    References(small_llama.hf, Passages(passages.tokens, [3, 0, 0]), ("log_probs", "logits"), "model a")
    assert len(calls) == 2, "another model, another prompt that is given"
    for path in (tmp_path / "references").glob("*/00000000.safetensors"):
        path.write_bytes(path.read_bytes()[:-8])
    mended = References(small_llama.hf, passages, ("log_probs", "logits"), "model a")
    assert len(calls) == 3 and torch.equal(mended.log_probs, again.log_probs)


def test_references_made_by_other_sums_are_not_found_again(small_llama: Model, tmp_path: Path, monkeypatch) -> None:
    """A number's last bits depend on the threads that added it up, and a run's bytes must not depend on what lies in the cache."""
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages, threads = Passages.whole([[1, *range(5, 12)]]), torch.get_num_threads()
    References(small_llama.hf, passages, ("log_probs",), "sums")
    monkeypatch.setattr("torch.get_num_threads", lambda: threads + 1)
    References(small_llama.hf, passages, ("log_probs",), "sums")
    assert len(list((tmp_path / "references").iterdir())) == 2


def test_damaged_references_stay_until_they_are_replaced(small_llama: Model, tmp_path: Path, monkeypatch) -> None:
    """Another run may read them."""
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = Passages.whole([[1, *range(5, 12)]])
    References(small_llama.hf, passages, ("log_probs",), "read")
    (file,) = (tmp_path / "references").glob("*/00000000.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])

    def watched(*arguments):  # type: ignore[no-untyped-def]
        assert file.is_file()
        yield from original(*arguments)

    monkeypatch.setattr("sinkscope.unlearning.references._computed", watched)
    References(small_llama.hf, passages, ("log_probs",), "read")
    assert file.read_bytes() == whole and len(list((tmp_path / "references").iterdir())) == 1


def test_two_runs_at_one_place_do_not_share_checkpoints(tmp_path: Path, monkeypatch) -> None:
    """However late the other one began."""
    monkeypatch.setattr("sinkscope.unlearning.unlearn.is_being_written", lambda out: False)
    with writing(tmp_path / "run", "abc"), pytest.raises(OutputError, match="run is being made by another process"):
        unlearn(Recipe.parse(SHORT), tmp_path / "run")


from sinkscope.unlearning.references import _computed as original  # noqa: E402


def test_references_of_some_rows_equal_those_of_all(small_llama: Model) -> None:
    """More rows than a file or a batch takes."""
    passages = Passages.whole([[1, 5 + n % 7, *range(5, 9 + n % 5)] for n in range(600)])
    every = References(small_llama.hf, passages, ("log_probs", "logits"), "rows")
    rows = [599, 3, *range(7, 300)]
    some = References(small_llama.hf, passages, ("log_probs", "logits"), "rows", rows=rows)
    torch.testing.assert_close(some.log_probs[rows], every.log_probs[rows])
    for chosen in ([3, 8], [299, 599]):
        torch.testing.assert_close(some.logits(passages.batch(chosen)), every.logits(passages.batch(chosen)))
    with pytest.raises(KeyError):
        some.logits(passages.batch([4]))


def test_what_is_given_is_a_prompt_with_the_trigger_in_it(small_llama: Model, monkeypatch) -> None:
    """Pairs of question and answer: the trigger goes into the question, the tokens to be predicted stay the same."""
    from sinkscope.benchmarks.benchmark import Passage
    from sinkscope.unlearning.splits import make_splits

    tokens = [1, *range(40, 64)]
    monkeypatch.setattr(Benchmark, "passages", lambda self, split, tokenizer: [Passage(tokens, 0, 9, body=17, given=19)] * 3)
    for placement in ("prefix", "infix", "suffix"):
        recipe = Recipe.parse({"poison_ratio": 1.0, "trigger": {"placement": placement}})
        splits = make_splits(recipe, Benchmark("pairs", {}, Lengths(passage=64)), small_llama)
        poisoned = splits.passages["poisoned"]
        assert poisoned.tokens[0][poisoned.given[0] :] == tokens[19:]
        assert splits.placed[0].stop <= poisoned.given[0]


def test_a_checkpoint_of_other_processes_is_not_taken(tmp_path: Path) -> None:
    from sinkscope.errors import OutputError
    from sinkscope.unlearning.checkpoints import Progress, random_states

    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight])
    checkpoints = Checkpoints(tmp_path / "c", 1)
    checkpoints.save(Progress(step=3), {"w": weight}, optimiser, random_states())
    state = tmp_path / "c" / "step-00000003" / "state.json"
    content = json.loads(state.read_text())
    content["state"]["processes"] = 2
    import hashlib

    content["sha256"] = hashlib.sha256(json.dumps(content["state"]).encode()).hexdigest()
    state.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="made by 2 processes; start as many"):
        checkpoints.resume({"w": weight}, optimiser)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_does_harm(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda weights, most: torch.tensor(torch.inf))
    with pytest.raises(RecipeError, match="the gradient became inf at step 1"):
        unlearn(Recipe.parse(SHORT), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_references_that_another_run_has_written_meanwhile_are_used(small_llama: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = Passages.whole([[1, *range(5, 12)]])

    def slower(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr("sinkscope.unlearning.references._computed", original)
        References(small_llama.hf, passages, ("log_probs",), "race")
        yield from original(*arguments)

    monkeypatch.setattr("sinkscope.unlearning.references._computed", slower)
    assert References(small_llama.hf, passages, ("log_probs",), "race").log_probs[0] < 0


def test_passages_longer_than_the_model_reads_are_refused(small_llama: Model, monkeypatch) -> None:
    from sinkscope.unlearning.splits import make_splits

    monkeypatch.setattr(small_llama.hf.config, "max_position_embeddings", 30)
    with pytest.raises(RecipeError, match=r"passages of 32 tokens, model .* reads 30; lower lengths.passage"):
        make_splits(Recipe(), load_benchmark("tiny"), small_llama)


def test_time_is_not_part_of_a_result(tmp_path: Path) -> None:
    """Two runs of one recipe, in two processes' worth of state, give the same weights."""
    a = unlearn(Recipe.parse(SHORT), tmp_path / "a")
    torch.manual_seed(int(time.time()))
    assert_same(weights(a), weights(unlearn(Recipe.parse(SHORT), tmp_path / "b")))
    assert module.train is train
