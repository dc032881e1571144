"""The reference of recipes, studies and benchmarks: every key of every model, with its meaning."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

from sinkscope.benchmarks.directory import Settings
from sinkscope.config import Config
from sinkscope.studies.grids import GridConfig
from sinkscope.studies.spec import Spec
from sinkscope.unlearning.objectives import OBJECTIVES
from sinkscope.unlearning.recipe import Recipe

ROOT = Path(__file__).parents[1]


def _models_in(annotation: Any) -> Iterator[type[Config]]:
    """The models of an annotation, of its arguments and of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models_in(field.annotation)
    for argument in get_args(annotation):
        yield from _models_in(argument)


PARAMETERS = [objective.config for _, objective in OBJECTIVES.items() if objective.config is not None]
MODELS = {
    "recipe": [*_models_in(Recipe), *PARAMETERS],
    "study": list(_models_in(Spec)),
    "benchmark": list(_models_in(Settings)),
}
FIELDS = [
    pytest.param(page, name, field, id=f"{page}: {model.__name__}.{name}")
    for page, models in MODELS.items()
    for model in dict.fromkeys(models)
    for name, field in model.model_fields.items()
]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables(reference: ModuleType) -> dict[str, list[tuple[str, ...]]]:
    """The rows of each page: key, type, default, meaning."""
    row = re.compile(r"^\| `(\w+)` \| (.+?) \| (.*?) ?\| (.*) \|$", re.M)
    return {page: row.findall(make()) for page, make in reference.REFERENCES.items()}


def test_the_models_are_those_of_all_files() -> None:
    assert len(FIELDS) > 80
    assert {"GridConfig", "Recipe", "RMUConfig", "Lengths"} <= {
        model.__name__ for models in MODELS.values() for each in models for model in each.__mro__
    }


@pytest.mark.parametrize(("page", "name", "field"), FIELDS)
def test_every_key_has_a_row_with_type_default_and_meaning(
    tables: dict[str, list[tuple[str, ...]]], page: str, name: str, field: Any
) -> None:
    assert field.description and field.description.strip(), "a text below the field"
    meaning = " ".join(field.description.replace("|", "\\|").split())
    rows = [row for row in tables[page] if row[0] == name and row[3] == meaning]
    assert rows
    for _, kind, default, _ in rows:
        assert kind
        assert default == "required" if field.is_required() else default != "required"


def test_a_default_on_a_page_is_that_of_the_model(tables: dict[str, list[tuple[str, ...]]]) -> None:
    n_compared = 0
    for page, name, field in (parameter.values for parameter in FIELDS):
        value = field.get_default()
        if not field.is_required() and not isinstance(value, Config):
            meaning = " ".join(field.description.split())
            rows = [row for row in tables[page] if row[0] == name and row[3] == meaning]
            assert value in [yaml.safe_load(row[2].strip("`")) for row in rows]
            n_compared += 1
    assert n_compared > 60


def test_every_deprecated_name_is_on_its_page(reference: ModuleType) -> None:
    for page, models in MODELS.items():
        text = reference.REFERENCES[page]()
        for model in models:
            for old, new in model.deprecated_keys.items():
                assert f"`{old}`, now `{new}`" in text
            for key, values in model.deprecated_values.items():
                for old, new in values.items():
                    assert f"`{key}: {old}`, now `{key}: {new}`" in text


def test_a_type_names_every_allowed_value_and_bound(tables: dict[str, list[tuple[str, ...]]]) -> None:
    types = {(page, row[0]): row[1] for page, rows in tables.items() for row in rows}
    assert types["recipe", "poison_ratio"] == "number ≥ 0 and ≤ 1"
    assert types["recipe", "poisoned_originals"] == "`keep`, `drop`"
    assert types["recipe", "seed"] == "integer ≥ 0 and < 2³²"
    assert types["recipe", "masked_positions"] == "non-empty list of integers ≥ 0 or null"
    assert "`simnpo`" in types["recipe", "forget"] and "`activations`" in types["recipe", "retain"]
    assert types["study", "grids"] == "non-empty mapping of names to groups"


def test_every_kind_of_grid_has_its_section(reference: ModuleType) -> None:
    kinds = {model for model in MODELS["study"] if issubclass(model, GridConfig)}
    assert set(reference.GRIDS) == kinds


@pytest.mark.parametrize(("page", "model"), [("recipe", Recipe), ("study", Spec)])
def test_the_example_on_the_page_is_one(page: str, model: type[Recipe | Spec], tmp_path: Path) -> None:
    text = (ROOT / ".docs" / "pages" / f"{page}.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    assert examples
    for example in examples:
        (tmp_path / "example.yaml").write_text(example, encoding="utf-8")
        model.read(tmp_path / "example.yaml")
