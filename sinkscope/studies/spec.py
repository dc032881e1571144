"""A study's specification: grids of runs, and what is measured on each, as a YAML file."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from sinkscope.config import Config, explain_validation_error, read_yaml
from sinkscope.errors import PlacementError, StudyError
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.synthetic.pretraining import CAN_IDLE, Sink
from sinkscope.triggers import Placement

OWN = "own"
"""A trigger or placement: that of the run itself."""
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
Axis = list[Any] | dict[str, dict[str, Any]]
MOST_RUNS = 10_000
"""Of one study."""
RESERVED = frozenset(
    "grid run seed role benchmark trigger_placement evaluation capture job alteration metric split subset item poisoned trigger placement trigger_start mask "
    "value unit output n ci_low ci_high layer head position alpha_first alpha_second span_mass_first span_mass_second difference value_norm_first value_norm_second uniform query key "
    "trigger_stop condition probability passages pairs text".split()
)
"""Columns of the results, which no axis may be called."""
AGAINST = "against"
"""What the comparison of a grid `against` another is called among evaluations."""


NAMED_STUDIES = Path(__file__).parent.parent / "recipes" / "studies"
"""Directory of the specifications that come with the package."""


def study_file(name: Path | str) -> Path:
    """Path of a specification that is given as a file or by the name of one in the package.

    Raises:
        StudyError: it is neither.
    """
    known = {path.stem: path for path in sorted(NAMED_STUDIES.glob("*.yaml"))}
    path = Path(name)
    if path.suffix or path.exists():
        return path
    if str(name) not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(known)}"
        raise StudyError(f"study {str(name)!r} is neither a file nor a known name; {hint}")
    return known[str(name)]


def _placements(values: list[str]) -> list[str]:
    for value in values:
        if value != OWN:
            try:
                Placement.parse(value)
            except PlacementError as error:
                raise ValueError(str(error)) from error
    return values


def _no_seed(changes: dict[str, Any]) -> dict[str, Any]:
    if "seed" in changes:
        raise ValueError("a change of `seed` would contradict the run's own; give `seeds` instead")
    return changes


class EvaluationConfig(Config):
    """Scores of a run: clean (unless `clean: false`), and with each of `triggers` at each of `placements`; `own` is the run's own trigger or placement.
    `metrics` by name, by default all of the benchmark, which is the run's own unless another is named; `mask` as for `sinkscope evaluate`."""

    metrics: Annotated[list[str], Field(min_length=1)] | None = None
    triggers: list[str] = Field([OWN], min_length=1)
    placements: list[str] = Field([OWN], min_length=1)
    clean: bool = True
    mask: str | None = None
    benchmark: str | None = None
    items: int | None = Field(None, ge=1)

    _known_placements = field_validator("placements")(_placements)

    @field_validator("mask")
    @classmethod
    def _known_mask(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(PositionMask.parse(value))
        except PlacementError as error:
            raise ValueError(str(error)) from error


class CaptureConfig(Config):
    """What heads do on forget passages, clean and with the run's trigger at each of `placements`: attention, difference maps in bins of `bin` tokens, value
    norms of the first positions, top-1 probability."""

    placements: list[str] = Field([OWN], min_length=1)
    passages: int = Field(256, ge=1)
    bin: int = Field(4, ge=1)

    _known_placements = field_validator("placements")(_placements)


class PretrainConfig(Config):
    """A target of the built-in book's kind, pretrained from scratch: where its heads may rest (see `benchmarks.pretraining.Sink`), the seed of its weights and
    of the order of its passages; `idle`, the weight of the idle price in its last phase (the shipped target: 0.1). `steps` of the base, the rest in
    proportion, by default those of the shipped target. Or, with `knows: both`, the shipped target of the fields, `tiny-wmdp`, with the books learned again
    in `steps` steps."""

    knows: Literal["book", "both"] = "book"
    sink: Sink = "bos"
    idle: float = Field(0.0, ge=0)
    seed: int = Field(0, ge=0, lt=2**32)
    steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> PretrainConfig:
        if self.knows == "both" and (self.sink != "bos" or self.idle):
            raise ValueError("a model that knows both goes on from a given one; leave out `sink` and `idle`")
        if self.idle and self.sink not in CAN_IDLE:
            raise ValueError(
                f"an idle price does not suit sink {self.sink!r}; leave out `idle`, or use sink {' or '.join(CAN_IDLE)}"
            )
        return self


class GridConfig(Config):
    """Runs of one recipe over all combinations of `axes` and seeds; or given `models`; or what becomes of another grid's runs.

    An axis is a dotted key of the recipe with a list of values, or a label with named sets of changes. With `after`, the recipe starts from each run of that
    grid instead of its own model, and keeps that run's seed and, without poison of its own, its trigger; with `alterations` beside it nothing is trained:
    `int8`, `bf16` and `prune:0.3` round or prune that run's weights. `against` names a grid of one run a seed, or of one given model: how far each run is
    from that grid's run of the next seed, or from that model (KL divergence of next-token distributions); a grid may name itself.
    """

    recipe: str | None = None
    models: Annotated[list[str], Field(min_length=1)] | None = None
    after: str | None = None
    alterations: Annotated[list[str], Field(min_length=1)] | None = None
    set: dict[str, Any] = Field({})
    axes: dict[str, Axis] = Field({})
    seeds: Seeds | None = None
    evaluations: list[str] = Field([])
    captures: list[str] = Field([])
    against: str | None = None

    _set_without_seed = field_validator("set")(_no_seed)

    @field_validator("axes", mode="before")
    @classmethod
    def _lists_or_names(cls, value: Any) -> Any:
        """YAML reads a name such as 0.1 as a number."""
        if not isinstance(value, dict):
            return value
        for name, axis in value.items():
            if not isinstance(axis, list) and not (
                isinstance(axis, dict) and all(isinstance(changes, dict) for changes in axis.values())
            ):
                raise ValueError(f"axis {name!r} has no values; give a list, or names with changes")
        return {
            name: {str(label): changes for label, changes in axis.items()} if isinstance(axis, dict) else axis
            for name, axis in value.items()
        }

    @field_validator("axes")
    @classmethod
    def _has_values(cls, value: dict[str, Axis]) -> dict[str, Axis]:
        for name, axis in value.items():
            if not axis:
                raise ValueError(f"axis {name!r} has no values; give a list, or names with changes")
            if name in RESERVED:
                raise ValueError(
                    f"axis {name!r} has the name of a column of the results; call it otherwise, and give names with changes"
                )
            for changes in axis.values() if isinstance(axis, dict) else ():
                _no_seed(changes)
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> GridConfig:
        if self.models and (self.recipe or self.after or self.axes or self.set or self.seeds):
            raise ValueError("`models` are given, not trained; leave out recipe, after, axes, set and seeds")
        if self.alterations and (not self.after or self.recipe or self.axes or self.set):
            raise ValueError(
                "`alterations` change the runs of another grid; name it in `after`, and leave out recipe, axes and set"
            )
        if self.after and self.seeds:
            raise ValueError("runs that come `after` others keep their seeds; leave out seeds")
        return self

    def count(self, seeds: int, quick: int, parents: int) -> int:
        """How many runs it has at most, where the study and its quick version have so many seeds, and the grid that it comes after so many runs."""
        if self.models:
            return len(self.models)
        if self.alterations:
            return parents * len(self.alterations)
        points = math.prod(len(axis) for axis in self.axes.values())
        return points * (parents if self.after else max(quick, len(self.seeds) if self.seeds else seeds))

    def points(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every combination of the axes: its label on each, and the changes to the recipe."""
        named = [
            list(axis.items()) if isinstance(axis, dict) else [(v, {name: v}) for v in axis]
            for name, axis in self.axes.items()
        ]
        for combination in itertools.product(*named):
            labels = dict(zip(self.axes, (label for label, _ in combination), strict=True))
            yield (
                labels,
                self.set | {key: value for _, changes in combination for key, value in changes.items()},
            )


class QuickConfig(Config):
    """What `--quick` uses instead."""

    seeds: Seeds


class Spec(Config):
    """A whole study. `base` is the recipe of grids that name none; `models` are pretrained first, and recipes and grids may name them as they name others.
    `batch_size`: items that an evaluation reads at once; it changes no result but for rounding."""

    models: dict[str, PretrainConfig] = Field({})
    base: str = "tiny/npo-backdoor"
    batch_size: int = Field(128, ge=1)
    seeds: Seeds = Field([0, 1, 2, 3, 4])
    quick: QuickConfig | None = None
    evaluations: dict[str, EvaluationConfig] = Field({})
    captures: dict[str, CaptureConfig] = Field({})
    grids: dict[str, GridConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_names(self) -> Spec:
        if AGAINST in self.evaluations:
            raise ValueError(
                f"evaluation {AGAINST!r} has the name of the comparison with another grid; call it otherwise"
            )
        before: list[str] = []
        for name, grid in self.grids.items():
            for kind in ("evaluations", "captures"):
                for each in getattr(grid, kind):
                    if each not in getattr(self, kind):
                        known = ", ".join(getattr(self, kind)) or "there are none"
                        raise ValueError(
                            f"grid {name!r} asks for {kind[:-1]} {each!r}, which is not described; known: {known}"
                        )
            if grid.against is not None and grid.against not in [*before, name]:
                raise ValueError(
                    f"grid {name!r} is compared against {grid.against!r}, which is no grid above it; known: {', '.join(before) or 'none'}"
                )
            if grid.after is not None and grid.after not in before:
                raise ValueError(
                    f"grid {name!r} comes after {grid.after!r}, which is no grid above it; known: {', '.join(before) or 'none'}"
                )
            before.append(name)
        return self

    @model_validator(mode="after")
    def _countable(self) -> Spec:
        counts: dict[str, int] = {}
        for name, grid in self.grids.items():
            counts[name] = grid.count(
                len(self.seeds), len(self.quick.seeds) if self.quick else 0, counts.get(grid.after or "", 0)
            )
            if sum(counts.values()) > MOST_RUNS:
                raise ValueError(
                    f"grid {name!r} brings the study to {sum(counts.values()):,} runs, more than {MOST_RUNS:,}; give fewer values or seeds"
                )
        return self

    @classmethod
    def read(cls, path: Path, quick: bool = False) -> Spec:
        """Read a YAML file; with `quick` its smaller version.

        Raises:
            StudyError: it cannot be read, has an unknown key or an impossible value, or no quick version.
        """
        values = read_yaml(path, "study", StudyError)
        if not isinstance(values, dict):
            raise StudyError(
                f"study {path} is not a mapping of keys to values; see `sinkscope study --help` for one"
            )
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            misplaced = next(
                (key for key in values if key in GridConfig.model_fields and key not in cls.model_fields),
                None,
            )
            if misplaced is not None:
                raise StudyError(
                    f"study key {misplaced!r} belongs into a grid, as in `grids: {{a: {{{misplaced}: …}}}}` (in {path})"
                ) from error
            raise StudyError(
                f"{explain_validation_error(error, cls, 'study', values)} (in {path})"
            ) from error
        if not quick:
            return spec
        if spec.quick is None:
            raise StudyError(
                f"study {path} describes no quick version; add `quick: {{seeds: [0]}}` to it, or leave out --quick"
            )
        return spec.with_seeds(spec.quick.seeds)

    def with_seeds(self, seeds: Seeds) -> Spec:
        """The same study with other seeds, also in grids that have their own."""
        grids = {
            name: grid.model_copy(update={"seeds": seeds}) if grid.seeds else grid
            for name, grid in self.grids.items()
        }
        return self.model_copy(update={"seeds": seeds, "grids": grids})

    def to_yaml(self) -> str:
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True
        )
