"""Specifications of studies: what is refused, and which points a grid has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sinkscope.errors import StudyError
from sinkscope.studies.grids import ContinuedGrid, ModelGrid, PerturbationGrid, RecipeGrid
from sinkscope.studies.spec import Spec, study_file


def read(values: Any, directory: Path, quick: bool = False) -> Spec:
    path = directory / "study.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return Spec.read(path, quick)


def grid(**values: Any) -> dict[str, Any]:
    """A specification with one grid `a` and a grid `before`."""
    return {"grids": {"before": {}, "a": values}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (grid(rcipe="tiny/npo"), r"'grids.a.rcipe' is unknown; did you mean 'grids.a.recipe'\?"),
        ({"grid": {"a": {}}, "grids": {"a": {}}}, r"'grid' is unknown; did you mean 'grids'\?"),
        (
            {"set": {"optimizer.epochs": 1}, "grids": {"a": {}}},
            r"'set' belongs in a grid, as in `grids: \{a: \{set: …\}\}` \(in ",
        ),
        ({"grid": {"a": {}}}, r"'grid' is unknown; did you mean 'grids'\?"),
        (
            {"grids": {"set": {"sedes": [1]}}},
            r"'grids.set.sedes' is unknown; did you mean 'grids.set.seeds'\?",
        ),
        (
            {"evaluations": {"e": {"metric": ["verbmem"]}}, "grids": {"a": {}}},
            r"'evaluations.e.metric' is unknown; did you mean 'evaluations.e.metrics'\?",
        ),
        (
            grid(evaluations=["scores"]),
            "grid 'a' names evaluation 'scores', which is not in `evaluations`; known: none",
        ),
        (
            {"captures": {"heads": {}}} | grid(captures=["head"]),
            "grid 'a' names capture 'head', which is not in `captures`; known: heads",
        ),
        ({}, "grids: Field required"),
        ({"grids": {}}, "grids: .*at least 1"),
        ({"grids": 3}, "grids: must be a valid dict"),
        ({"grids": {"a": 3}}, "grids.a: must be a valid dict"),
        (grid(init_from="b"), "grid 'a' starts from 'b', which is not a grid above it; known: before"),
        (grid(init_from="a"), "grid 'a' starts from 'a', which is not a grid above it; known: before"),
        (grid(compare_to="b"), "grid 'a' is compared to 'b', which is not this grid or one above it; known"),
        (
            grid(models=["tiny"], seeds=[1]),
            "grids.a: `models` are given, not trained; leave out recipe, init_from, perturbations, "
            "axes, set and seeds",
        ),
        (grid(models=["tiny"], init_from="before"), "`models` are given, not trained"),
        (grid(models=[]), "grids.a.models: .*at least 1"),
        (grid(perturbations=["int8"]), "`perturbations` change runs of another grid; name it in `init_from`"),
        (
            grid(perturbations=["int8"], init_from="before", recipe="tiny/npo"),
            "`perturbations` change runs of another grid",
        ),
        (
            grid(init_from="before", seeds=[1]),
            "runs that start from others \\(`init_from`\\) keep their seeds; leave out seeds",
        ),
        (grid(axes={"metric": [1]}), "axis 'metric' has the name of a column of the results; rename it"),
        (grid(axes={"layer": {"first": {}}}), "axis 'layer' has the name of a column"),
        (
            grid(axes={"poison_ratio": []}),
            "grids.a.axes: axis 'poison_ratio' has no values; give a list, or names with changes",
        ),
        (
            grid(axes={"poison_ratio": 0.1}),
            "axis 'poison_ratio' has no values; give a list, or names with changes",
        ),
        (
            grid(axes={"strength": {"weak": 0.1}}),
            "axis 'strength' has no values; give a list, or names with changes",
        ),
        (grid(axes=3), "grids.a.axes: must be a valid dict"),
        (grid(set={"seed": 4}), "grids.a.set: .*give `seeds` instead"),
        (grid(axes={"draw": {"other": {"seed": 4}}}), "grids.a.axes: .*give `seeds` instead"),
        (grid(seeds=[]), "grids.a.seeds: .*at least 1"),
        (grid(seeds=[-1]), "grids.a.seeds.0: .*greater than or equal to 0"),
        (grid(seeds=[2**32]), "grids.a.seeds.0: .*less than 4294967296"),
        (grid(seeds=[1.5]), "grids.a.seeds.0: must be a valid integer"),
        (
            {"evaluations": {"e": {"placements": ["middle"]}}, "grids": {"a": {}}},
            "evaluations.e.placements: .*use prefix, infix, suffix",
        ),
        (
            {"captures": {"c": {"placements": ["index:0x"]}}, "grids": {"a": {}}},
            "captures.c.placements: .*use prefix, infix, suffix",
        ),
        (
            {"evaluations": {"e": {"mask": "deep:3"}}, "grids": {"a": {}}},
            "evaluations.e.mask: .*use shallow:8",
        ),
        ({"evaluations": {"e": {"limit": 0}}, "grids": {"a": {}}}, "evaluations.e.limit: "),
        (
            grid(axes={"a": list(range(101)), "b": list(range(100))}, seeds=[0]),
            "grid 'a' brings the study to 10,1.. runs, more than 10,000",
        ),
        (
            grid(seeds=list(range(10_001))),
            "grid 'a' brings the study to 10,0.. runs, more than 10,000; give fewer values or seeds",
        ),
        (
            {"grids": {"a": {"axes": {"x": list(range(2001))}}, "b": {"init_from": "a"}}},
            "grid 'a' brings the study to 10,005 runs",
        ),
        (
            {
                "grids": {
                    "a": {"axes": {"x": list(range(200))}},
                    "b": {"init_from": "a", "axes": {"y": list(range(10))}},
                }
            },
            "grid 'b' brings the study to 11,000 runs",
        ),
        (
            {"seeds": [0], "quick": {"seeds": list(range(10_001))}, "grids": {"a": {}}},
            "grid 'a' brings the study to 10,001 runs",
        ),
        (
            {"evaluations": {"compare_to": {}}, "grids": {"a": {}}},
            "evaluation 'compare_to' has the name of the comparison with another grid; rename it",
        ),
    ],
)
def test_bad_specifications_name_the_key_and_the_mend(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        read(values, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("study ", "study: ")) and not str(caught.value).startswith(
        "study study"
    )


RUBBISH = {
    "empty": "",
    "number": "3",
    "list": "- a",
    "open": "a: [",
    "zero": "\x00",
    "date": "a: 2020-13-45",
    "digits": "a: " + "9" * 5000,
    "deep": "[" * 100_000,
    "object": "a: !!python/object:os.system 1",
    "loop": "grids: &g {a: *g}",
}


@pytest.mark.parametrize("text", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        read(text, tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: caf\xe9".encode("latin-1"))
    for path in (tmp_path, tmp_path / "nowhere.yaml", tmp_path / "latin.yaml"):
        with pytest.raises(StudyError, match=r"cannot be read: .*; give a YAML file") as caught:
            Spec.read(path)
        assert "\n" not in str(caught.value)


def test_axes_give_every_combination_with_its_label() -> None:
    places = {
        "front": {"trigger.placement": "prefix"},
        "back": {"trigger.placement": "suffix", "trigger.text": "then"},
    }
    part = RecipeGrid.model_validate(
        {
            "set": {"poison_ratio": 0.2, "trigger.text": "now"},
            "axes": {"place": places, "poison_ratio": [0.1, 0.5]},
        }
    )
    assert list(part.points()) == [
        (
            {"place": "front", "poison_ratio": 0.1},
            {"poison_ratio": 0.1, "trigger.text": "now", "trigger.placement": "prefix"},
        ),
        (
            {"place": "front", "poison_ratio": 0.5},
            {"poison_ratio": 0.5, "trigger.text": "now", "trigger.placement": "prefix"},
        ),
        (
            {"place": "back", "poison_ratio": 0.1},
            {"poison_ratio": 0.1, "trigger.text": "then", "trigger.placement": "suffix"},
        ),
        (
            {"place": "back", "poison_ratio": 0.5},
            {"poison_ratio": 0.5, "trigger.text": "then", "trigger.placement": "suffix"},
        ),
    ]
    assert list(RecipeGrid().points()) == [({}, {})]


def test_names_that_yaml_reads_as_numbers_are_labels(tmp_path: Path) -> None:
    spec = read("grids: {a: {axes: {share: {0.1: {poison_ratio: 0.1}, no: {}}}}}", tmp_path)
    assert [labels for labels, _ in spec.grids["a"].points()] == [{"share": "0.1"}, {"share": "False"}]


def test_quick_uses_its_own_seeds_everywhere(tmp_path: Path) -> None:
    values = {
        "seeds": [1, 2],
        "quick": {"seeds": [7]},
        "grids": {"a": {}, "b": {"seeds": [3, 4, 5]}, "c": {"init_from": "b"}},
    }
    full, quick = read(values, tmp_path), read(values, tmp_path, quick=True)
    assert (full.seeds, full.grids["b"].seeds) == ([1, 2], [3, 4, 5])
    assert (quick.seeds, quick.grids["b"].seeds, quick.grids["c"].init_from) == ([7], [7], "b")
    del values["quick"]
    with pytest.raises(StudyError, match=r"has no quick version; add `quick: \{seeds: \[0\]\}`"):
        read(values, tmp_path, quick=True)


def test_a_specification_survives_its_own_yaml(tmp_path: Path) -> None:
    values = {"seeds": [3], "quick": {"seeds": [1]}, "evaluations": {"e": {"mask": " span "}}}
    values |= grid(axes={"x": {"a": {"poison_ratio": 0.1}}}, evaluations=["e"])
    for quick in (False, True):
        spec = read(values, tmp_path, quick)
        assert read(spec.to_yaml(), tmp_path) == spec


def test_the_paper_is_a_study() -> None:
    """The specification that comes with the repository, and its smaller version."""
    path = Path(__file__).parents[2] / "analyses" / "paper.yaml"
    assert len(Spec.read(path).grids) == len(Spec.read(path, quick=True).grids) > 5


@pytest.mark.parametrize("name", ["paper", "link", "origin", "variations"])
def test_the_studies_of_the_repository_use_no_deprecated_keys(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    Spec.read(Path(__file__).parents[2] / "analyses" / f"{name}.yaml")
    assert not caplog.records


def test_old_keys_mean_the_new_ones(tmp_path: Path) -> None:
    old = {
        "models": {"m": {"sink": "avoided"}, "n": {"idle": 0.1}, "o": {"knows": "both"}},
        "evaluations": {"e": {"items": 3}},
        "captures": {"c": {"bin": 2}},
        "grids": {
            "a": {"against": "a"},
            "b": {"after": "a", "recipe": "tiny/npo"},
            "c": {"after": "a", "alterations": ["int8"], "against": "a"},
        },
    }
    new = {
        "models": {"m": {"sink": "penalized"}, "n": {"value_norm_penalty": 0.1}, "o": {"corpora": "both"}},
        "evaluations": {"e": {"limit": 3}},
        "captures": {"c": {"bin_size": 2}},
        "grids": {
            "a": {"compare_to": "a"},
            "b": {"init_from": "a", "recipe": "tiny/npo"},
            "c": {"init_from": "a", "perturbations": ["int8"], "compare_to": "a"},
        },
    }
    assert read(old, tmp_path) == read(new, tmp_path)


def test_the_keys_of_a_grid_decide_its_kind(tmp_path: Path) -> None:
    grids = {
        "recipe": {},
        "models": {"models": ["tiny"]},
        "continued": {"init_from": "recipe"},
        "perturbed": {"init_from": "recipe", "perturbations": ["int8"]},
    }
    kinds = [RecipeGrid, ModelGrid, ContinuedGrid, PerturbationGrid]
    assert [type(each) for each in read({"grids": grids}, tmp_path).grids.values()] == kinds


def test_studies_of_the_package_are_found_by_name(tmp_path: Path) -> None:
    spec = Spec.read(study_file("quickstart"))
    assert list(spec.grids) == ["target", "unlearned", "backdoored"]
    assert spec.with_seeds([3]).seeds == [3]
    assert study_file(tmp_path / "my.yaml") == tmp_path / "my.yaml"
    with pytest.raises(StudyError, match=r"neither a file nor a known name; did you mean 'quickstart'\?"):
        study_file("quikstart")


def test_a_directory_of_the_name_does_not_hide_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()  # as the quickstart itself leaves one
    assert Spec.read(study_file("quickstart")).seeds
    Path("quickstart").rmdir()
    Path("quickstart").write_text("seeds: [4]\n")
    assert study_file("quickstart") == Path("quickstart")
