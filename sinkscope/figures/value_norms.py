"""Figure 5: value norms at the first positions of the last layer. Whose norms a backdoored model keeps, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.compare import CONSTANT, correlation
from sinkscope.figures.captures import last_layer_norms, passages_of
from sinkscope.figures.numbers import over_seeds, seeds_in_words
from sinkscope.plots import curves, interactive
from sinkscope.studies.study import Study

NEEDS = ("target", "honest", "position")
FIRST = 8
CONDITIONS = {"clean": "clean forget", "prefix": "forget with trigger", "retain": "retain"}
MODELS = {"backdoored": "prefix", "honest": "honest", "target": "target"}
QUANTITIES = {"correlation": "Pearson’s r of ‖v‖₂\nbackdoored with …", "magnitude": "‖v‖₂, mean over heads"}
RESAMPLES = 300


def frame(study: Study) -> pd.DataFrame:
    """A row per quantity, condition (clean forget passages, the same with the trigger, retain passages), model and position 0 to 7, last layer.

    The backdoored model is that of a semantic prefix; honest is that of the same seed. `correlation` is Pearson's r of the backdoored model's value norms with
    those of `model`, over passages with heads pooled, NaN where norms do not vary; `alike` says that all passages read the same tokens up to there,
    so that r is over heads alone. `magnitude` is the mean over passages and heads. The paper's picture is r with honest on clean, with target on triggered and on retain.
    The interval of one seed is a percentile bootstrap over passages.

    Raises:
        StudyError: the study lacks what is needed.
    """
    backdoored, honest, target = (last_layer_norms(study, grid, "prefix") for grid in ("position", "honest", "target"))
    original = next(iter(target.values()))
    rows = []
    for condition in CONDITIONS:
        reference = passages_of(original, condition)
        rows.append(_numbers(_mean, (reference,), quantity="magnitude", condition=condition, model="target", seed=0))
        for seed, norms in backdoored.items():
            mine = passages_of(norms, condition)
            rows.append(_numbers(_mean, (mine,), quantity="magnitude", condition=condition, model="backdoored", seed=seed))
            rows.append(_numbers(_r, (mine, reference), quantity="correlation", condition=condition, model="target", seed=seed))
            if seed in honest:
                theirs = passages_of(honest[seed], condition)
                rows.append(_numbers(_mean, (theirs,), quantity="magnitude", condition=condition, model="honest", seed=seed))
                rows.append(_numbers(_r, (mine, theirs), quantity="correlation", condition=condition, model="honest", seed=seed))
    measured = pd.concat(rows, ignore_index=True).assign(grid="position")
    made = over_seeds(measured, ["quantity", "condition", "model", "position"])
    alike = measured.groupby(["condition", "position"])["alike"].all()
    return made.join(alike, on=["condition", "position"]).sort_values(
        ["quantity", "condition"], key=lambda column: column.map([*QUANTITIES, *CONDITIONS].index), kind="stable", ignore_index=True
    )


def _mean(norms: np.ndarray) -> np.ndarray:
    return norms.mean((0, 1, 2))


def _r(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return correlation(first, second)[0]


def _numbers(of: Callable[..., np.ndarray], norms: tuple[np.ndarray, ...], **about: object) -> pd.DataFrame:
    """A row per position: the value of `of`, its interval, n passages, and whether all of them read the same tokens so far."""
    norms = tuple(each[..., :FIRST] for each in norms)
    values, n = of(*norms), len(norms[0])
    low, high = _quantiles(np.array(list(_again(of, norms))))
    alike = (norms[0].std(0) <= CONSTANT * norms[0].mean(0)).all((0, 1))
    return pd.DataFrame({**about, "position": range(len(values)), "value": values, "ci_low": low, "ci_high": high, "n": n, "alike": alike})


def _again(of: Callable[..., np.ndarray], norms: tuple[np.ndarray, ...]) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(norms[0]), len(norms[0]))
        yield of(*(each[drawn] for each in norms))


def _quantiles(again: np.ndarray) -> np.ndarray:
    made = np.full((2, again.shape[1]), np.nan)
    defined = ~np.isnan(again).all(0)
    made[:, defined] = np.nanquantile(again[:, defined], [0.025, 0.975], axis=0)
    return made


def _panels(frame: pd.DataFrame) -> pd.DataFrame:
    names = {"row": frame["quantity"].map(QUANTITIES), "column": frame["condition"].map(CONDITIONS), "line": frame["model"]}
    return frame.assign(**names, trigger_start=np.nan, trigger_stop=np.nan)


def caption(frame: pd.DataFrame) -> str:
    about = "Value norms of the last layer; backdoored by a semantic prefix. BOS, and all positions under the prefix, read the same tokens in every passage: "
    n = "–".join(map(str, dict.fromkeys((frame["n"].min(), frame["n"].max()))))
    return f"{about}r there is over the heads alone; n = {n} passages; {seeds_in_words(frame, 'passages')}"


def draw(frame: pd.DataFrame) -> Figure:
    return curves.curves(_panels(frame), MODELS, caption(frame), (None, None))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.curves(_panels(frame), MODELS, caption(frame), (None, None))
