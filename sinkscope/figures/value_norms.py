"""Figure 5: value norms at the first positions of the last layer. Whose norms a backdoored model keeps, and how large they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.captures import last_layer_norms
from sinkscope.figures.numbers import counted, ordered, over_seeds, seeds_in_words
from sinkscope.plots import interactive
from sinkscope.plots import lines as curves
from sinkscope.sinks.captures import select_common_passages
from sinkscope.sinks.comparison import MIN_RELATIVE_SPREAD, correlation
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
FIRST = 16
CONDITIONS = {"clean": "clean forget", "prefix": "forget with trigger", "retain": "retain"}
MODELS = {"backdoored": "prefix", "unlearned": "unlearned", "target": "target"}
QUANTITIES = {"correlation": "Pearson’s r of ‖v‖₂\nbackdoored with …", "magnitude": "‖v‖₂, mean over heads"}
RESAMPLES = 300


def frame(study: Study) -> pd.DataFrame:
    """A row per quantity, condition (clean forget passages, the same with the trigger, retain passages), model and position 0 to 7, last layer.

    The backdoored model is that of a semantic prefix; honest is that of the same seed. `correlation` is Pearson's r of the backdoored model's value norms with
    those of `model`, over passages with heads pooled, NaN where norms do not vary; `alike` says that all passages read the same tokens up to there,
    so that r is over heads alone. `magnitude` is the mean over passages and heads.
    The paper's picture is r with honest on clean, with target on triggered and on retain.
    The interval of one seed is a percentile bootstrap over passages.

    Raises:
        StudyError: the study lacks what is needed.
    """
    backdoored, honest, target = (
        last_layer_norms(study, grid, "prefix") for grid in ("position", "unlearned", "target")
    )
    original, alone = next(iter(target.values())), len(backdoored) == 1
    rows = []
    for condition in CONDITIONS:

        def add(quantity: str, model: str, seed: int, *norms: np.ndarray, single: bool = alone) -> None:
            rows.append(
                _numbers(norms, single).assign(quantity=quantity, condition=condition, model=model, seed=seed)
            )

        add("magnitude", "target", 0, *select_common_passages(condition, original), single=True)
        for seed, norms in backdoored.items():
            add("magnitude", "backdoored", seed, *select_common_passages(condition, norms))
            add("correlation", "target", seed, *select_common_passages(condition, norms, original))
            if seed in honest:
                add("magnitude", "unlearned", seed, *select_common_passages(condition, honest[seed]))
                add("correlation", "unlearned", seed, *select_common_passages(condition, norms, honest[seed]))
    measured = pd.concat(rows, ignore_index=True).assign(grid="position")
    made = over_seeds(measured, ["quantity", "condition", "model", "position"])
    alike = measured.groupby(["condition", "position"])["alike"].all()
    return ordered(
        made.join(alike, on=["condition", "position"]),
        quantity=QUANTITIES,
        condition=CONDITIONS,
        model=MODELS,
    )


def _numbers(norms: tuple[np.ndarray, ...], single: bool) -> pd.DataFrame:
    """A row per position: mean of one model's norms or correlation of two, its bootstrap interval if `single`, n passages, and whether all read the same."""
    norms = tuple(each[..., :FIRST] for each in norms)
    values, n = _value(norms), len(norms[0])
    low, high = _bootstrap(norms) if single else np.full((2, len(values)), np.nan)
    alike = (norms[0].std(0) <= MIN_RELATIVE_SPREAD * norms[0].mean(0)).all((0, 1))
    return pd.DataFrame(
        {
            "position": range(len(values)),
            "value": values,
            "ci_low": low,
            "ci_high": high,
            "n": n,
            "alike": alike,
        }
    )


def _value(norms: tuple[np.ndarray, ...]) -> np.ndarray:
    return correlation(*norms)[0] if len(norms) == 2 else norms[0].mean((0, 1, 2))


def _bootstrap(norms: tuple[np.ndarray, ...]) -> np.ndarray:
    """95 % percentile interval of `_value`, resampling passages; NaN where it is not defined."""
    rng, n = np.random.default_rng(0), len(norms[0])
    again = np.array(
        [_value(tuple(each[drawn] for each in norms)) for drawn in rng.integers(0, n, (RESAMPLES, n))]
    )
    made = np.full((2, again.shape[1]), np.nan)
    defined = ~np.isnan(again).all(0)
    made[:, defined] = np.nanquantile(again[:, defined], [0.025, 0.975], axis=0)
    return made


def _panels(frame: pd.DataFrame) -> pd.DataFrame:
    names = {
        "row": frame["quantity"].map(QUANTITIES),
        "column": frame["condition"].map(CONDITIONS),
        "line": frame["model"],
        "hollow": frame["alike"],
    }
    return frame.assign(**names, trigger_start=np.nan, trigger_stop=np.nan)


def caption(frame: pd.DataFrame) -> str:
    about = "Value norms of the last layer; backdoored by a semantic prefix; hollow: same tokens in all passages up to here, so that "
    return f"{about}r is over heads alone; n = {counted(frame['n'])} passages; {seeds_in_words(frame, 'passages')}"


def draw(frame: pd.DataFrame) -> Figure:
    return curves.curves(_panels(frame), MODELS, caption(frame), None)


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.curves(_panels(frame), MODELS, caption(frame), None)
