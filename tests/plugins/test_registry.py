"""Registries: names, nearest names, entry points."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from sinkscope.errors import RecipeError
from sinkscope.plugins import Registry


def test_values_keep_their_order() -> None:
    registry = Registry[int]("objective", RecipeError)
    registry.add("b", 1)
    registry.add("a", 2)
    assert list(registry) == ["b", "a"]
    assert dict(registry.items()) == {"b": 1, "a": 2}
    assert "c" not in registry


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    registry = Registry[int]("objective", RecipeError)
    registry.add("simnpo", 1)
    registry.add("rmu", 2)
    with pytest.raises(RecipeError, match="objective 'simpno' is unknown; did you mean 'simnpo'"):
        registry["simpno"]
    with pytest.raises(RecipeError, match="use one of: simnpo, rmu"):
        registry["x"]
    with pytest.raises(RecipeError, match="registered twice"):
        registry.add("rmu", 3)


def test_entry_points_are_loaded_when_the_registry_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "an_objective_plugin.py").write_text("VALUE = 7\n")
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sinkscope.tested]\nseven = an_objective_plugin:VALUE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry[int]("objective", RecipeError, "sinkscope.tested")
    assert "an_objective_plugin" not in sys.modules
    assert registry["seven"] == 7
    assert registry.plugin_hashes(["seven"]) == {"seven": hashlib.sha256(b"VALUE = 7\n").hexdigest()}


def test_a_broken_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sinkscope.broken]\nx = no_such_plugin_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecipeError, match="plugin no_such_plugin_module cannot be loaded"):
        list(Registry[int]("objective", RecipeError, "sinkscope.broken"))
