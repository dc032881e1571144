"""Generated studies of one seed and of several, built once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from sinkscope.studies.study import Study
from tests.analyses.fake import fake_study
from tests.analyses.fake_extensions import extension_study
from tests.analyses.fake_targets import targets_study


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Study]:
    """Number of seeds -> study as of paper.yaml."""
    root = tmp_path_factory.mktemp("studies")
    return {n: fake_study(root / f"seeds-{n}", range(n)) for n in (1, 5)}


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Study]:
    """Specification (`link`, `origin`, `variations`, `targets`) and number of seeds -> study, built on first
    use."""
    root = tmp_path_factory.mktemp("extensions")

    @functools.cache
    def build(name: str, n: int) -> Study:
        directory = root / f"{name}-{n}"
        if name == "targets":
            return targets_study(directory, range(n))
        return extension_study(directory, name, range(n))

    return build
