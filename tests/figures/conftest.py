"""Made-up studies of one seed and of five, built once a session."""

from __future__ import annotations

import pytest

from sinkscope.studies.study import Study
from tests.figures.fake import fake_study


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Study]:
    """Number of seeds -> study."""
    root = tmp_path_factory.mktemp("studies")
    return {n: fake_study(root / f"seeds-{n}", range(n)) for n in (1, 5)}
