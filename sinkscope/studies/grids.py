"""Grids of a specification: runs of a recipe, given models, continued runs, perturbed runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from sinkscope.config import Config
from sinkscope.schema import CAPTURE, ITEMS, SCORES

RESERVED = frozenset(
    [
        *(
            column
            for columns in (SCORES, ITEMS, *CAPTURE.values())
            for column in columns
            if column != "model"
        ),
        *"grid run benchmark trigger_placement evaluation capture job perturbation unit".split(),
    ]
)
"""Columns of the tables of a study, which no axis may be called; the tables have `run` instead of `model`."""
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
Axis = list[Any] | dict[str, dict[str, Any]]


def check_no_seed(changes: dict[str, Any]) -> dict[str, Any]:
    """Refuse a change of a recipe's `seed`, which would contradict the seed of the run."""
    if "seed" in changes:
        raise ValueError("a change of `seed` would contradict the run's own; give `seeds` instead")
    return changes


class GridConfig(Config):
    """Keys of every grid."""

    deprecated_keys: ClassVar[dict[str, str]] = {
        "after": "init_from",
        "against": "compare_to",
        "alterations": "perturbations",
    }

    evaluations: list[str] = Field([])
    """Names of the evaluations of each run."""
    captures: list[str] = Field([])
    """Names of the captures of each run."""
    compare_to: str | None = None
    """Name of this grid or one above it, with one run per seed or one given model: how far each run is from
    that grid's run of the next seed, or from that model (KL divergence of next-token distributions)."""


class ModelGrid(GridConfig):
    """Given models, or models that the study pretrains; nothing is unlearned."""

    models: Annotated[list[str], Field(min_length=1)]
    """The models, as in a recipe, or names of models that the study pretrains."""


class PerturbationGrid(GridConfig):
    """Runs of another grid with perturbed weights."""

    init_from: str
    """Name of a grid above this one, whose runs are perturbed."""
    perturbations: Annotated[list[str], Field(min_length=1)]
    """Each of `int8` or `bf16` (rounding) or `prune:S` (the share S of smallest weights becomes 0)."""


class TrainedGrid(GridConfig):
    """Runs of one recipe over all combinations of `axes`."""

    recipe: str | None = None
    """A recipe's name or file; by default the study's `base`."""
    set: dict[str, Any] = Field({})
    """Changes of the recipe in all runs, by dotted keys: `{optimizer.epochs: 1}`."""
    axes: dict[str, Axis] = Field({})
    """What differs between the runs. An axis is a dotted key of the recipe with a list of values, or a name
    of its own with named sets of changes."""

    _set_without_seed = field_validator("set")(check_no_seed)

    @field_validator("axes", mode="before")
    @classmethod
    def _parse_axes(cls, value: Any) -> Any:
        """Check each axis; YAML reads a name such as 0.1 as a number, so names become text."""
        if not isinstance(value, dict):
            return value
        axes = {}
        for name, axis in value.items():
            is_named = isinstance(axis, dict) and all(isinstance(changes, dict) for changes in axis.values())
            if not axis or not (is_named or isinstance(axis, list)):
                raise ValueError(f"axis {name!r} has no values; give a list, or names with changes")
            if name in RESERVED:
                raise ValueError(
                    f"axis {name!r} has the name of a column of the results; rename it, "
                    "and give names with changes"
                )
            axes[name] = {str(each): check_no_seed(axis[each]) for each in axis} if is_named else axis
        return axes

    def points(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every combination of the axes: its label on each axis, and its changes to the recipe."""
        entries = [
            list(axis.items()) if isinstance(axis, dict) else [(value, {name: value}) for value in axis]
            for name, axis in self.axes.items()
        ]
        for combination in itertools.product(*entries):
            labels = {name: label for name, (label, _) in zip(self.axes, combination, strict=True)}
            changes = dict(self.set)
            for _, axis_changes in combination:
                changes |= axis_changes
            yield labels, changes


class RecipeGrid(TrainedGrid):
    """Runs that start from the recipe's own model."""

    seeds: Seeds | None = None
    """Every combination is run with each of these seeds; by default the study's."""


class ContinuedGrid(TrainedGrid):
    """Runs that start from each run of another grid instead of the recipe's own model.

    A run keeps the seed of the run that it starts from and, where its own recipe poisons nothing, its
    trigger.
    """

    init_from: str
    """Name of a grid above this one, whose runs are continued."""


def parent_of(grid: GridConfig) -> str | None:
    """Name of the grid whose runs a grid starts from."""
    return grid.init_from if isinstance(grid, ContinuedGrid | PerturbationGrid) else None


def _grid_kind(values: Any) -> str:
    """Tag of the kind of grid that has these keys; brackets keep it out of the path in error messages."""
    keys = values if isinstance(values, dict) else getattr(type(values), "model_fields", ())
    return next((f"[{key}]" for key in ("models", "perturbations", "init_from") if key in keys), "[recipe]")


def _check_mixed_kinds(values: Any) -> Any:
    """Refuse keys of one kind of grid in a grid of another kind; deprecated keys are replaced."""
    if not isinstance(values, dict):
        return values
    values = GridConfig.replace_deprecated(values)
    keys = values.keys()
    if "models" in keys and keys & {"recipe", "init_from", "perturbations", "axes", "set", "seeds"}:
        raise ValueError(
            "`models` are given, not trained; leave out recipe, init_from, perturbations, axes, set and seeds"
        )
    if "perturbations" in keys and ("init_from" not in keys or keys & {"recipe", "axes", "set"}):
        raise ValueError(
            "`perturbations` change runs of another grid; name it in `init_from`, "
            "and leave out recipe, axes and set"
        )
    if "init_from" in keys and "seeds" in keys:
        raise ValueError("runs that start from others (`init_from`) keep their seeds; leave out seeds")
    return values


Grid = Annotated[
    Annotated[RecipeGrid, Tag("[recipe]")]
    | Annotated[ModelGrid, Tag("[models]")]
    | Annotated[ContinuedGrid, Tag("[init_from]")]
    | Annotated[PerturbationGrid, Tag("[perturbations]")],
    Discriminator(_grid_kind),
    BeforeValidator(_check_mixed_kinds),
]
"""Any kind of grid; which one, its keys decide."""
