"""The specification of a study: grids of runs, and what is measured on each, as a YAML file."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from sinkscope.config import Config, read_yaml, validate_config
from sinkscope.errors import StudyError, suggest
from sinkscope.evaluation.requests import PositionMask
from sinkscope.studies.grids import (
    ContinuedGrid,
    Grid,
    ModelGrid,
    PerturbationGrid,
    RecipeGrid,
    Seeds,
    parent_of,
)
from sinkscope.synthetic.pretraining import VALUE_NORM_SINKS, Sink
from sinkscope.triggers import Placement

OWN = "own"
"""A trigger or placement: the one that the run was trained with."""
COMPARISON = "compare_to"
"""Name of the comparison of a grid with another one, among its evaluations."""
MAX_RUNS = 10_000
"""Largest number of runs in one study."""
NAMED_STUDIES = Path(__file__).parent.parent / "recipes" / "studies"
"""Directory of the specifications that come with the package."""


def study_file(name: Path | str) -> Path:
    """Path of a specification that is given as a file or by the name of one in the package.

    A directory of a known name, as `quickstart` writes one, does not hide the specification.

    Raises:
        StudyError: it is neither.
    """
    known = {path.stem: path for path in sorted(NAMED_STUDIES.glob("*.yaml"))}
    path = Path(name)
    if str(name) in known and not path.is_file():
        return known[str(name)]
    if not path.suffix and not path.exists():
        raise StudyError(
            f"study {str(name)!r} is neither a file nor a known name; {suggest(str(name), known)}"
        )
    return path


def _parse_placements(values: list[str]) -> list[str]:
    return [value if value == OWN else str(Placement.parse(value)) for value in values]


Placements = Annotated[list[str], Field(min_length=1), AfterValidator(_parse_placements)]
Mask = Annotated[str, AfterValidator(lambda value: str(PositionMask.parse(value)))]


class EvaluationConfig(Config):
    """Scores of a run: clean, and with each of `triggers` at each of `placements`."""

    deprecated_keys: ClassVar[dict[str, str]] = {"items": "limit"}

    metrics: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of metrics; by default all that the benchmark has data for."""
    triggers: list[str] = Field([OWN], min_length=1)
    """Trigger texts; `own` is the run's own."""
    placements: Placements = Field([OWN])
    """Where each trigger is inserted, as in a recipe; `own` is where the run was trained with it."""
    clean: bool = True
    """Whether prompts without a trigger are scored too."""
    mask: Mask | None = None
    """A mask of positions: `shallow:N`, `sinks:N`, `span` (the trigger) or `positions:4,9`."""
    benchmark: str | None = None
    """A benchmark's name or directory; by default the run's own."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many items of each split are scored; by default all."""


class CaptureConfig(Config):
    """Attention on forget passages, clean and with the run's trigger.

    Attention by position, maps of its change, value norms and top-1 probability.
    """

    deprecated_keys: ClassVar[dict[str, str]] = {"bin": "bin_size"}

    placements: Placements = Field([OWN])
    """Where the trigger is inserted, as in a recipe; `own` is where the run was trained with it."""
    passages: int = Field(256, ge=1)
    """The first so many forget passages of full length are read; poisoned ones are left out."""
    bin_size: int = Field(4, ge=1)
    """Tokens per bin of the maps."""


class PretrainConfig(Config):
    """A target that is pretrained from scratch as the built-in one was."""

    deprecated_keys: ClassVar[dict[str, str]] = {"knows": "corpora", "idle": "value_norm_penalty"}
    deprecated_values: ClassVar[dict[str, dict[str, str]]] = {"sink": {"avoided": "penalized"}}

    corpora: Literal["book", "both"] = "book"
    """What it knows: the books of `tiny`, or both corpora. The latter is the built-in target of `tiny-wmdp`,
    trained on the books again."""
    sink: Sink = "bos"
    """What its heads can attend to: BOS; `learned`, a parameter in the softmax, as in gpt-oss; not the first
    token, on which attention is `penalized`; `no-bos`, the first token of the text, without BOS."""
    value_norm_penalty: float = Field(0.0, ge=0)
    """Weight of the penalty on attention-weighted value norms in the last phase; 0.1 for the built-in target.
    It fits `bos` and `no-bos`."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of its weights and of the order of its passages."""
    steps: int | None = Field(None, ge=1)
    """Length of the first phase, to which the others are proportional; with `both` that of the only one. By
    default as the built-in targets."""

    @model_validator(mode="after")
    def _check_combination(self) -> PretrainConfig:
        if self.corpora == "both" and (self.sink != "bos" or self.value_norm_penalty):
            raise ValueError(
                "a model of both corpora starts from a given one; leave out `sink` and `value_norm_penalty`"
            )
        if self.value_norm_penalty and self.sink not in VALUE_NORM_SINKS:
            raise ValueError(
                f"a value norm penalty does not fit sink {self.sink!r}; "
                f"leave out `value_norm_penalty`, or use sink {' or '.join(VALUE_NORM_SINKS)}"
            )
        return self


class QuickConfig(Config):
    """What `--quick` uses instead."""

    seeds: Seeds
    """The seeds of all grids."""


class Spec(Config):
    """A study."""

    models: dict[str, PretrainConfig] = Field({})
    """Models that are pretrained first, by names of your choice; recipes and grids name them as other
    models."""
    base: str = "tiny/npo-backdoor"
    """The recipe, by name or file, of grids that name none."""
    batch_size: int = Field(128, ge=1)
    """Sequences per forward pass in evaluations; it changes results by rounding only."""
    seeds: Seeds = Field([0, 1, 2, 3, 4])
    """Seeds of unlearning runs; every combination of a grid is run with each."""
    quick: QuickConfig | None = None
    """The smaller version, which `sinkscope study --quick` runs."""
    evaluations: dict[str, EvaluationConfig] = Field({})
    """What is scored, by names that grids refer to."""
    captures: dict[str, CaptureConfig] = Field({})
    """What is measured of attention, by names that grids refer to."""
    grids: dict[str, Grid] = Field(min_length=1)
    """The runs, by names of your choice; a grid may refer to those above it."""

    @model_validator(mode="after")
    def _check_grids(self) -> Spec:
        if COMPARISON in self.evaluations:
            raise ValueError(
                f"evaluation {COMPARISON!r} has the name of the comparison with another grid; rename it"
            )
        counts: dict[str, int] = {}
        for name, grid in self.grids.items():
            for evaluation in grid.evaluations:
                _check_known(name, "names evaluation", evaluation, self.evaluations, "in `evaluations`")
            for capture in grid.captures:
                _check_known(name, "names capture", capture, self.captures, "in `captures`")
            if grid.compare_to is not None:
                _check_known(
                    name, "is compared to", grid.compare_to, [*counts, name], "this grid or one above it"
                )
            if (parent := parent_of(grid)) is not None:
                _check_known(name, "starts from", parent, counts, "a grid above it")
            counts[name] = self._count_runs(grid, counts)
            if (total := sum(counts.values())) > MAX_RUNS:
                raise ValueError(
                    f"grid {name!r} brings the study to {total:,} runs, more than {MAX_RUNS:,}; "
                    "give fewer values or seeds"
                )
        return self

    def _count_runs(self, grid: Grid, counts: Mapping[str, int]) -> int:
        """The runs of a grid, from the counts of those above it."""
        if isinstance(grid, ModelGrid):
            return len(grid.models)
        if isinstance(grid, PerturbationGrid):
            return counts[grid.init_from] * len(grid.perturbations)
        n_points = math.prod(map(len, grid.axes.values()))
        if isinstance(grid, ContinuedGrid):
            return counts[grid.init_from] * n_points
        n_seeds = [len(grid.seeds or self.seeds), len(self.quick.seeds) if self.quick else 0]
        return max(n_seeds) * n_points

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
        kinds = (RecipeGrid, ModelGrid, ContinuedGrid, PerturbationGrid)
        grid_keys = {key for kind in kinds for key in [*kind.model_fields, *kind.deprecated_keys]}
        try:
            for key in values:
                if key in grid_keys - cls.model_fields.keys():
                    raise StudyError(
                        f"study key {key!r} belongs in a grid, as in `grids: {{a: {{{key}: …}}}}`"
                    )
            spec = validate_config(cls, values, "study", StudyError)
        except StudyError as error:
            raise StudyError(f"{error} (in {path})") from error
        if not quick:
            return spec
        if spec.quick is None:
            raise StudyError(
                f"study {path} has no quick version; add `quick: {{seeds: [0]}}` to it, or run the full study"
            )
        return spec.with_seeds(spec.quick.seeds)

    def with_seeds(self, seeds: Seeds) -> Spec:
        """The same study with other seeds, also in grids that have their own."""
        grids = {
            name: grid.model_copy(update={"seeds": seeds})
            if isinstance(grid, RecipeGrid) and grid.seeds
            else grid
            for name, grid in self.grids.items()
        }
        return self.model_copy(update={"seeds": seeds, "grids": grids})

    def to_yaml(self) -> str:
        values = self.model_dump(mode="json", exclude_unset=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _check_known(grid: str, relation: str, name: str, known: Collection[str], place: str) -> None:
    if name not in known:
        raise ValueError(
            f"grid {grid!r} {relation} {name!r}, which is not {place}; known: {', '.join(known) or 'none'}"
        )
