"""The pre-registered claims and other analyses of several targets, against literal computations on made-up
studies."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import make
import numpy as np
import pandas as pd
import pytest
from bootstrap import Sample
from scipy import stats
from target_claims import find_targets, judge_targets, target_claims
from target_secondary import estimate_variation, measure_values, spearman_exact

from sinkscope.studies.study import Study
from sinkscope.synthetic.language import TRIGGERS
from tests.analyses.fake import change_tables
from tests.analyses.fake_targets import shift

Extension = Callable[[str, int], Study]
TARGETS = tuple(f"bos-{seed}" for seed in range(11, 19))
POINTS = 100
FORGET, RETAIN = "forget", "retain"


@pytest.fixture(scope="module")
def study(extension: Extension) -> Study:
    return extension("targets", 3)


@pytest.fixture(scope="module")
def judged(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    return judge_targets(study, TARGETS)


Means = dict[str, dict[int, float]]


def means(
    study: Study, *, unseen: bool = False, targets: tuple[str, ...] = TARGETS, **where: object
) -> Means:
    """Target -> seed -> mean over items, × 100, from the rows of the items one by one."""
    values: dict[str, dict[int, list[float]]] = {t: defaultdict(list) for t in targets}
    rows = study.table("items")
    for key, value in where.items():
        rows = rows[rows[key.replace("__", ".")] == value]
    poisoned = poisoned_items(study)
    for row in rows.to_dict("records"):
        target = row["run"] if where["grid"] == "target" else row["model"]
        if target not in values:
            continue
        seeds = (0, 1, 2) if where["grid"] == "target" else (row["seed"],)
        for seed in seeds:
            if not (unseen and row["split"] == FORGET and row["item"] in poisoned[seed]):
                values[target][seed].append(row["value"])
    return {t: {s: POINTS * float(np.mean(each)) for s, each in by.items()} for t, by in values.items()}


def poisoned_items(study: Study) -> dict[int, set[int]]:
    rows = study.table("items")
    rows = rows[rows["poisoned"].fillna(False).astype(bool)]
    return {seed: set(part["item"]) for seed, part in rows.groupby("seed")}


def average(by_target: Means) -> float:
    return float(np.mean([np.mean(list(by_seed.values())) for by_seed in by_target.values()]))


def effect(table: pd.DataFrame, number: int, part: str = "") -> float:
    rows = table[(table["number"] == number) & table["part"].str.contains(part)]
    return rows["effect"].item()


TRIGGERED = {"placement": "prefix", "trigger": TRIGGERS["semantic"]}


def test_the_ten_claims_in_their_order() -> None:
    claims = target_claims(TARGETS)
    assert [(claim.source, claim.metric) for claim in claims] == [
        *[("Fig. 2", metric) for metric in ("verbmem", "knowmem")] * 2,
        ("Fig. 2", "verbmem"),
        *[("Fig. 2", metric) for metric in ("verbmem", "knowmem")],
        *[(source, "verbmem") for source in ("Fig. 7", "Table 3", "stealth")],
    ]
    margins = [[(each.kind, each.limit) for each in claim.comparisons] for claim in claims]
    above, zone = [("above", 5.0)], [("above", 0.0)] * 3
    at_most = [("at most", 0.0), ("at most", 5.0)]
    assert margins == [above, above, above, above, above, zone, zone, above, at_most, at_most]
    required = [[each.limit for each in claim.requires] for claim in claims]
    assert required == [[20.0, 20.0] if number == 9 else [20.0] for number in range(1, 11)]


def test_effects_are_those_of_a_literal_reading_of_items(study: Study, judged: tuple) -> None:
    _, parts = judged
    recited = {"metric": "verbmem", "split": FORGET}
    recovered = {
        placement: means(
            study,
            unseen=True,
            grid="position",
            trigger__placement=placement,
            **recited | TRIGGERED | {"placement": placement},
        )
        for placement in ("prefix", "infix", "suffix")
    }
    unlearned = means(study, unseen=True, grid="unlearned", **recited, **TRIGGERED)
    assert effect(parts, 1) == pytest.approx(average(recovered["prefix"]) - average(unlearned))
    assert effect(parts, 3) == pytest.approx(average(recovered["prefix"]) - average(recovered["infix"]))
    assert effect(parts, 5) == pytest.approx(average(recovered["prefix"]) - average(recovered["suffix"]))
    clean = {"placement": "", "evaluation": "own", "unseen": True}
    reached = means(study, grid="position", trigger__placement="prefix", **recited, **clean)
    edges = [
        means(study, unseen=True, grid=grid, **recited, placement="") for grid in ("unlearned", "target")
    ]
    depth = [
        min(np.mean(list(recovered["prefix"][t].values())) - edge, edge - np.mean(list(reached[t].values())))
        for t in TARGETS
        for edge in [np.mean([np.mean(list(each[t].values())) for each in edges])]
    ]
    assert effect(parts, 6, "^prefix") == pytest.approx(np.mean(depth))
    masked = means(study, unseen=True, grid="masked", evaluation="mask-shallow", **recited, **TRIGGERED)
    assert effect(parts, 9, "at most") == pytest.approx(average(masked) - 1.5 * average(unlearned))
    kept = [
        means(study, grid="masked", evaluation=name, metric="verbmem", split=RETAIN, placement="")
        for name in ("own", "mask-shallow")
    ]
    assert effect(parts, 9, "retain") == pytest.approx(average(kept[0]) - average(kept[1]))
    stealth = [
        means(study, grid="position", trigger__placement="prefix", **recited, placement=""),
        means(study, grid="unlearned", **recited, placement=""),
    ]
    assert effect(parts, 10, "forget") == pytest.approx(average(stealth[0]) - 1.5 * average(stealth[1]))


def test_placement_over_form_is_computed_in_each_target(study: Study, judged: tuple) -> None:
    grids = []
    for form, text in TRIGGERS.items():
        for placement in ("prefix", "infix", "suffix"):
            by_target = means(
                study,
                unseen=True,
                grid="form",
                form=form,
                trigger__placement=placement,
                metric="verbmem",
                split=FORGET,
                placement=placement,
                trigger=text,
            )
            assert all(set(by_seed) == {0} for by_seed in by_target.values())
            grids.append([by_seed[0] for by_seed in by_target.values()])
    grid = np.reshape(grids, (3, 3, len(TARGETS)))  # form × placement × target
    effects = [
        each[:, 0].mean() - each[:, 2].mean() - (each.mean(1).max() - each.mean(1).min())
        for each in np.moveaxis(grid, -1, 0)
    ]
    table, _ = judged
    row = table[table["number"] == 8].iloc[0]
    assert row["effect"] == pytest.approx(np.mean(effects))
    assert (row["seeds"], row["targets"]) == (1, 8)


def test_table_of_claims(judged: tuple) -> None:
    table, parts = judged
    assert table["number"].tolist() == list(range(1, 11))
    assert parts["number"].value_counts().to_dict() == {
        n: 3 if n in (6, 7) else 2 if n > 8 else 1 for n in range(1, 11)
    }
    assert (table["p_holm"] >= table["p"]).all() and not table.isna().any(axis=None)
    assert (table["conditions"] == "met").all()
    assert table.loc[table["number"] <= 5, "verdict"].eq("reproduced").all()
    for number, rows in parts.groupby("number"):
        deciding = table[table["number"] == number].iloc[0]
        assert deciding["p"] == rows["p"].max()
    prefix = table[table["number"] == 1].iloc[0]
    assert prefix["items"] == pytest.approx(17) and prefix["built_in"] > prefix["effect"]
    order = table["p"].rank().astype(int)
    expected = (table["p"] * (11 - order)).iloc[np.argsort(order)].cummax()
    assert table["p_holm"].iloc[np.argsort(order)].to_numpy() == pytest.approx(expected.to_numpy())


def test_a_target_that_forgot_nothing_cannot_be_tested(study: Study, tmp_path: Path) -> None:
    def remember(items: pd.DataFrame) -> pd.DataFrame:
        is_clean = (
            (items["grid"] == "unlearned") & (items["placement"] == "") & (items["metric"] == "knowmem")
        )
        return items.assign(value=items["value"].where(~is_clean, 0.9))

    table, _ = judge_targets(change_tables(study, tmp_path / "study", items=remember), TARGETS)
    rows = table[table["metric"] == "knowmem"]
    assert (rows["verdict"] == "not testable").all() and (rows["p_holm"] == 1).all()
    assert rows["conditions"].str.startswith("not met: NPO lowers the target's score (1.").all()
    assert "not testable" not in set(table[table["metric"] == "verbmem"]["verdict"])


def damage(drop: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(items: pd.DataFrame) -> pd.DataFrame:
        is_lost = items.eval(drop)
        assert is_lost.any()
        return items[~is_lost]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            damage("seed == 2 and grid == 'position'"),
            "lacks 27 of 81 results of grid 'position', first bos-11, ",
        ),
        (damage("model == 'bos-13' and grid == 'unlearned'"), "lacks 3 of 27 results of grid 'unlearned'"),
        (damage("run == 'tiny'"), "lacks 1 of 9 results of grid 'target', first tiny, everywhere"),
        (damage("evaluation == 'mask-shallow'"), "lacks 27 of 108 results of grid 'masked'"),
        (
            damage("item == 5 and seed == 1 and grid == 'masked' and evaluation == 'own'"),
            "lacks item 5 with seed 1",
        ),
        (lambda items: items.assign(value=items["value"].where(items["item"] != 3)), "lacks item 3 "),
    ],
)
def test_an_incomplete_study_is_one_line(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable, message: str
) -> None:
    broken = change_tables(study, tmp_path / "study", items=change)
    with pytest.raises(SystemExit) as stopped:
        make.main([str(broken.directory), "--out", str(tmp_path / "out"), "--only", "claims"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_claims_of_several_targets_are_written(study: Study, tmp_path: Path) -> None:
    make.main([str(study.directory), "--out", str(tmp_path), "--only", "claims"])
    names = ["claims", "parts", "values", "sink_correlation", "masking", "variation"]
    files = {*(f"target_{name}.csv" for name in names), "target_claims.md"}
    assert {path.name for path in tmp_path.iterdir()} == files | {"index.json"}
    for name in names:
        assert not pd.read_csv(tmp_path / f"target_{name}.csv").isna().any(axis=None)
    text = (tmp_path / "target_claims.md").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 12
    # of a conjunction the part that decides is counted, of unseen items or of all 20
    assert re.search(r"8 targets, 1–3 seeds, 8–(17|20) items", text)
    masking = pd.read_csv(tmp_path / "target_masking.csv")
    built_in = masking[masking["is_built_in"]]
    assert len(built_in) == len(masking) / 2 and (built_in["targets"] == 1).all()


def test_one_seed_has_no_variation_between_seeds(extension: Extension, tmp_path: Path) -> None:
    make.main([str(extension("targets", 1).directory), "--out", str(tmp_path), "--only", "claims"])
    assert (tmp_path / "target_masking.csv").is_file()
    assert not (tmp_path / "target_variation.csv").exists()
    assert pd.read_csv(tmp_path / "target_claims.csv")["seeds"].eq(1).all()


def test_other_studies_have_no_targets(extension: Extension, studies: dict[int, Study]) -> None:
    assert find_targets(extension("targets", 3)) == TARGETS
    assert find_targets(extension("origin", 1)) is None
    assert find_targets(studies[1]) is None


def test_values_and_ranks(study: Study) -> None:
    values = measure_values(study, TARGETS)
    recited = values[values["metric"] == "verbmem"].set_index("target")
    by_target = means(
        study,
        unseen=True,
        targets=(*TARGETS, "tiny"),
        grid="position",
        trigger__placement="prefix",
        metric="verbmem",
        split=FORGET,
        **TRIGGERED,
    )
    for target, by_seed in by_target.items():
        assert recited.loc[target, "BE prefix"] == pytest.approx(np.mean(list(by_seed.values())))
    order = sorted(recited.index, key=lambda target: -recited.loc[target, "BE prefix"])
    assert [recited.loc[target, "rank of BE prefix"] for target in order] == list(range(1, 10))
    assert order[0] == "tiny" and shift("tiny") > max(map(shift, TARGETS))
    alpha = study.table("attention")
    alpha = alpha[(alpha["run"] == "bos-12") & (alpha["position"] == 0) & (alpha["placement"] == "prefix")]
    assert recited.loc["bos-12", "alpha"] == pytest.approx(alpha["alpha_first"].mean())


def test_exact_spearman_equals_all_permutations() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=6)
    y = x + rng.normal(size=6)
    rho, p = spearman_exact(x, y)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    every = [stats.spearmanr(list(each), y).statistic for each in itertools.permutations(x)]
    assert p == pytest.approx(np.mean(np.abs(every) >= abs(rho) - 1e-9))
    assert spearman_exact(np.arange(8.0), np.arange(8.0)) == pytest.approx((1.0, 2 / 40320))
    assert np.isnan(spearman_exact(np.ones(4), np.arange(4.0))).all()


def test_variance_components_are_free_of_the_chance_of_items() -> None:
    rng = np.random.default_rng(1)
    n_targets, n_seeds, n_items = 400, 3, 25
    values = rng.normal(0, 5, (n_targets, 1, 1)) + rng.normal(0, 3, (n_targets, n_seeds, 1))
    values = values + rng.normal(0, 20, n_items) + rng.normal(0, 12, (n_targets, 1, n_items))
    values = values + rng.normal(0, 10, (n_targets, n_seeds, n_items))
    found = estimate_variation(Sample(values, "a"))
    assert found["component_targets"] == pytest.approx(5, rel=0.1)
    assert found["component_seeds"] == pytest.approx(3, rel=0.1)
    assert found["sd_seeds"] == pytest.approx(np.sqrt(9 + 100 / 25), rel=0.1)
    assert found["sd_targets"] == pytest.approx(np.sqrt(25 + 9 / 3 + 144 / 25 + 100 / 75), rel=0.1)
    none = estimate_variation(Sample(np.repeat(values[:1, :1], 3, 0).repeat(3, 1), "a"))
    assert (none["component_targets"], none["component_seeds"]) == pytest.approx((0, 0), abs=1e-6)


def test_figure_of_targets(study: Study) -> None:
    frame = make.find_figures()["ext_targets"].compute(study)
    assert len(frame) == 2 * 2 * 3 * 10 and not frame.isna().any(axis=None)
    keys = {"metric": "verbmem", "model": "backdoored", "placement": "prefix"}
    rows = frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)].set_index("target")
    by_target = means(
        study,
        unseen=True,
        grid="position",
        trigger__placement="prefix",
        metric="verbmem",
        split=FORGET,
        **TRIGGERED,
    )
    assert rows.loc["mean", "value"] == pytest.approx(average(by_target))
    assert rows.loc["bos-15", "seed 2"] == pytest.approx(by_target["bos-15"][2])
    assert rows.loc["mean", "seed 1"] == pytest.approx(np.mean([each[1] for each in by_target.values()]))
    assert (rows.loc["mean", "targets"], rows.loc["tiny", "targets"], rows.loc["tiny", "n"]) == (8, 1, 17)
