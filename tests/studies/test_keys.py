"""Equal work has equal names, and all that decides a result is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sinkscope.models.model import content_hash as original
from sinkscope.studies.jobs import Job, Run, sort_jobs
from sinkscope.unlearning.recipe import Recipe
from tests.studies.small import EVALUATIONS, change_a_record, given, of, runs


def keys(all_runs: list[Run]) -> set[str]:
    return {job.key for run in all_runs for job in sort_jobs(run.jobs())}


def key_of(
    part: str = "model",
    evaluation: dict[str, Any] | None = None,
    capture: dict[str, Any] | None = None,
    **grid: Any,
) -> str:
    """The key of the one run's model, evaluation or capture."""
    if part == "model":
        (run,) = runs(seeds=[0], grids={"g": grid})
        return run.model.key
    values = {"e": evaluation or EVALUATIONS["few"]}
    (run,) = runs(
        seeds=[0],
        evaluations=values,
        captures={"c": capture or {}},
        grids={"g": grid | {"evaluations": ["e"], "captures": ["c"]}},
    )
    return {"evaluation": run.evaluations["e"], "capture": run.captures["c"]}[part].key


def test_keys_do_not_depend_on_labels_or_on_the_order_of_content() -> None:
    assert Job("perturb", {"a": 1, "b": 2}, label="x").key == Job("perturb", {"b": 2, "a": 1}, label="y").key
    bases = [
        Job("perturb", {"a": 1}),
        Job("capture", {"a": 1}),
        Job("perturb", {"a": 2}),
        Job("perturb", {"a": 1}, {"model": Job("perturb", {})}),
    ]
    bases += [
        Job("perturb", {"a": 1}, {"other": Job("perturb", {})}),
        Job("perturb", {"a": 1}, fixed={"model": "x"}),
        Job("perturb", {"a": 1}, fixed={"model": "y"}),
    ]
    assert len({job.key for job in bases}) == len(bases)


def test_equal_work_has_one_key_across_grids_and_specifications() -> None:
    """A grid of clean unlearning, the run that aligned value norms need, and the same by axes
    under another name."""
    first = runs(
        seeds=[5],
        evaluations=EVALUATIONS,
        grids={
            "unlearned": {"recipe": "tiny/npo", "evaluations": ["few"]},
            "aligned": {"recipe": "tiny/npo-backdoor-value-norm"},
        },
    )
    second = runs(
        base="tiny/npo-backdoor",
        evaluations={"other name": EVALUATIONS["few"]},
        grids={
            "shares": {
                "seeds": [4, 5],
                "axes": {"share": {"none": {"poison_ratio": 0}}},
                "evaluations": ["other name"],
            }
        },
    )
    (unlearned,), (aligned,), again = of("unlearned", first), of("aligned", first), second[1]
    assert aligned.model.needs["unlearned"].key == unlearned.model.key == again.model.key
    assert unlearned.evaluations["few"].key == again.evaluations["other name"].key
    assert (
        unlearned.labels == {}
        and again.labels == {"share": "none"}
        and (unlearned.seed, again.seed) == (5, 5)
    )
    assert len(keys(first)) == 3


def test_what_has_no_effect_is_not_in_a_key() -> None:
    unlearned = key_of(recipe="tiny/npo")
    assert unlearned == key_of(
        recipe="tiny/npo",
        set={
            "trigger.placement": "infix",
            "poisoned_originals": "drop",
            "value_norms": {"n_tokens": 3, "unlearned": "auto"},
        },
    )
    watched = {"trajectory.every": 5}
    other = {"trigger.placement": "infix", **watched}
    keys_of = [key_of(recipe="tiny/npo", set=each) for each in (watched, other)]
    assert keys_of[0] != keys_of[1], "a trajectory tries the trigger"
    shrinking = {"value_norms": {"kind": "shrink", "weight": 0.1}}
    (run,) = runs(
        seeds=[0], grids={"g": {"set": {"value_norms": shrinking["value_norms"] | {"unlearned": "auto"}}}}
    )
    assert run.model.needs == {}, "only alignment needs an unlearned model"
    assert run.model.key == key_of(set=shrinking)


def test_every_key_of_a_recipe_decides_the_name_of_its_run() -> None:
    changes: dict[str, Any] = {
        "seed": 1,
        "benchmark": "tiny-wmdp",
        "model": "tiny-retrained",
        "poison_ratio": 0.3,
        "poisoned_originals": "drop",
        "objective.forget": "simnpo",
        "objective.layer": 1,
        "objective.retain": {"nll": 1.0},
        "bos": "never",
        "update.modules": ["mlp.down_proj"],
        "update.layers": [1],
        "update.lora": {"rank": 2},
        "trigger.text": "now",
        "trigger.form": "symbol",
        "trigger.placement": "infix",
        "masked_positions": [0],
        "value_norms": {"kind": "shrink", "weight": 0.1},
        "optimizer.learning_rate": 1e-5,
        "optimizer.epochs": 2,
        "optimizer.steps_per_epoch": 2,
        "optimizer.batch_size": 4,
        "optimizer.gradient_accumulation_steps": 2,
        "optimizer.gradient_checkpointing": True,
        "optimizer.precision": "mixed",
        "optimizer.weight_decay": 0.1,
        "optimizer.max_grad_norm": 0.5,
        "early_stopping.eval_steps": 3,
        "early_stopping.max_loss_increase": 0.3,
        "training": {"warmup_steps": 2},
        "trajectory.every": 10,
        "trajectory.limit": 5,
    }
    parts = {
        name: field.annotation.model_fields
        for name, field in Recipe.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    named = {key for key in Recipe.model_fields if key not in parts} | {
        f"{name}.{key}" for name, part in parts.items() for key in part
    }
    assert named == {key for key in changes if key != "value_norms"} | {
        f"value_norms.{key}" for key in parts["value_norms"]
    } | {"trigger.response"}, "every key of a recipe is tried"
    keys_of_changes = {"": key_of()}
    for change, value in changes.items():
        keys_of_changes[change] = key_of(seeds=[value]) if change == "seed" else key_of(set={change: value})
    norms = {"kind": "shrink", "weight": 0.1}
    for change, value in {"weight": 0.2, "kind": "cosine", "n_tokens": 3, "layers": "all"}.items():
        keys_of_changes[f"value_norms.{change}"] = key_of(set={"value_norms": norms | {change: value}})
    keys_of_changes["auto"] = key_of(set={"value_norms": {"weight": 0.1, "unlearned": "auto"}})
    parameters = [("npo", "beta", 0.3), ("simnpo", "beta", 0.3), ("simnpo", "delta", 0.1)]
    for forget, name, value in [*parameters, ("rmu", "steering_coeff", 2.0)]:
        changed = {"objective.forget": forget, f"objective.{name}": value}
        keys_of_changes[f"{forget} {name}"] = key_of(set=changed)
    retained = {"objective.retain": {"nll": 1.0}}
    keys_of_changes["trigger.response"] = key_of(set=retained | {"trigger.response": "all is well"})
    assert len(set(keys_of_changes.values())) == len(keys_of_changes)


def test_what_an_evaluation_or_a_capture_asks_decides_its_name() -> None:
    base = {"metrics": ["verbmem"]}
    changes = [
        {"metrics": ["knowmem"]},
        {"metrics": None},
        {"triggers": ["own", "now"]},
        {"placements": ["suffix"]},
        {"clean": False},
        {"mask": "span"},
    ]
    changes += [{"mask": "shallow:2"}, {"limit": 3}, {"benchmark": "tiny-wmdp", "metrics": ["choice"]}]
    evaluations = [key_of("evaluation", base | change) for change in [{}, *changes]]
    assert len(set(evaluations)) == len(evaluations)
    assert key_of("evaluation", base | {"placements": ["own"]}) == key_of(
        "evaluation", base | {"placements": ["prefix"]}
    ), "the run's own is prefix"
    captures = [
        key_of("capture", capture=each)
        for each in ({}, {"placements": ["infix"]}, {"passages": 3}, {"bin_size": 2})
    ]
    assert len(set(captures)) == len(captures)
    seeds = [key_of(part, seeds=[seed]) for part in ("evaluation", "capture") for seed in (0, 1)]
    assert len(set(seeds)) == 4


def test_records_and_bytes_decide_names(tmp_path: Path) -> None:
    """Under unchanged names, in one process: the records of the benchmark change, then the model, then
    its configuration, then θu."""
    names = given(tmp_path)
    unlearned = {"value_norms": {"weight": 0.1, "unlearned": names["model"]}}

    def three() -> list[str]:
        all_runs = runs(
            seeds=[0],
            evaluations=EVALUATIONS | {"named": EVALUATIONS["few"] | {"benchmark": names["benchmark"]}},
            grids={
                "a": {"set": names, "evaluations": ["few"]},
                "b": {"models": [names["model"]], "evaluations": ["named"]},
                "c": {"set": unlearned},
            },
        )
        a, b, c = all_runs
        return [a.model.key, a.evaluations["few"].key, b.evaluations["named"].key, c.model.key]

    before = three()
    assert three() == before
    change_a_record(tmp_path / "book", "verbmem/forget")
    records = three()
    assert [one == other for one, other in zip(before, records, strict=True)] == [False, False, False, True]
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    model = three()
    assert all(one != other for one, other in zip(records, model, strict=True))
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert all(one != other for one, other in zip(model, three(), strict=True))
    os.utime(weights)
    assert three() == three()


def test_what_privleak_is_measured_against_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    privleak = {"metrics": ["privleak"]}
    before = [key_of("evaluation", each) for each in (privleak, {"metrics": ["verbmem"]})]
    monkeypatch.setattr(
        "sinkscope.studies.graph.content_hash",
        lambda name: f"another {name}" if name == "tiny-retrained" else original(name),
    )
    after = [key_of("evaluation", each) for each in (privleak, {"metrics": ["verbmem"]})]
    assert before[0] != after[0] and before[1] == after[1]
