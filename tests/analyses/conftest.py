"""Made-up studies of one seed and of several, built once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from sinkscope.studies.study import Study
from tests.figures.fake import fake_study
from tests.figures.fake_following import following_study


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Study]:
    """Number of seeds -> study."""
    root = tmp_path_factory.mktemp("studies")
    return {n: fake_study(root / f"seeds-{n}", range(n)) for n in (1, 5)}


@pytest.fixture(scope="session")
def following(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Study]:
    """Specification (`link`, `origin`, `variations`) and number of seeds -> study, built when it is first asked for."""
    root = tmp_path_factory.mktemp("following")
    return functools.cache(lambda name, n: following_study(root / f"{name}-{n}", name, range(n)))
