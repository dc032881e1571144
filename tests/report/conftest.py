"""Results to make pages of: sinks of a model with hostile names and text, a synthetic study; a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from sinkscope.cli.main import app
from sinkscope.io.run_directory import checksums, create_run
from sinkscope.models.model import Model, load
from sinkscope.plots.sinks import draw_locate
from sinkscope.report import write_report
from sinkscope.sinks.locate import CaptureConfig, write_locate
from sinkscope.sinks.sink_map import SinkMap, find_ranked, uniform_alpha
from sinkscope.sinks.statistics import MAX_BINS
from sinkscope.studies.study import Study
from sinkscope.text import tokenize_passages
from tests.analyses.fake import HOSTILE, fake_study
from tests.conftest import TEXT

HOSTILE_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200" onload="alert(1)"><desc>drawn</desc>'
    '<script>alert(1)</script><image href="https://example.org/x.png" width="9" height="9"/>'
    '<rect width="300" height="200" fill="#0173b2"/></svg>'
)
CLAIMS = f"""source,claim,split,metric,effect,ci_low,ci_high,unit,kind,margin,seeds,items,verdict,reason
section 1,triggers recover,contrastive,VerbMem,40,30,50,points,above,5,3,148,reproduced,
"{HOSTILE}","{HOSTILE}",contrastive,VerbMem,1,-3,4,points,at most,5,3,148,not reproduced,
section 3,no runs,published,VerbMem,,,,points,within,5,,,inconclusive,no such runs
"""
TAG = "<img src=x>"
"""Short enough for a trigger."""
HOSTILE_NAME = "<img src=x onerror=alert(1)>"
"""As `HOSTILE`, without the slash that no file name can have."""


@pytest.fixture(scope="session")
def hostile_model(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(
        str(shutil.copytree(checkpoints["llama"], tmp_path_factory.mktemp("models") / HOSTILE_NAME)),
        device="cpu",
    )


@pytest.fixture(scope="session")
def sinks(hostile_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `locate` wrote."""
    out = tmp_path_factory.mktemp("located") / HOSTILE_NAME
    passages = tokenize_passages([f"{HOSTILE} {TEXT}"], hostile_model, 40)
    write_locate(out, hostile_model, passages, CaptureConfig(statistics=("entropy",)), draw=draw_locate)
    return out


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a figure and claims of the analyses, both with hostile text."""
    directory = fake_study(tmp_path_factory.mktemp("study") / "paper", range(2)).directory
    figures = directory / "figures"
    figures.mkdir()
    (figures / "drawn.svg").write_text(HOSTILE_SVG, encoding="utf-8")
    (figures / "drawn.csv").write_text(f'model,value\n"{HOSTILE}",1.5\ntarget,2\n', encoding="utf-8")
    (figures / "claims.csv").write_text(CLAIMS, encoding="utf-8")
    entry = {"name": "drawn", "title": HOSTILE, "caption": HOSTILE, "svg": "drawn.svg", "csv": "drawn.csv"}
    index = {"study": Study(directory).identity, "files": checksums(figures), "figures": [entry]}
    (figures / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def study_page(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "study.html"
    write_report(study, page)
    return page


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small results of `compare`, `evaluate`, `audit` and `unlearn`, each in a directory of its name."""
    root = tmp_path_factory.mktemp("others")
    (root / "notes.txt").write_text(f"{HOSTILE} {TEXT}", encoding="utf-8")
    (root / "triggers.txt").write_text(f"the year\n{TAG}\n", encoding="utf-8")
    few = ["--benchmark", "tiny", "--limit", 4]
    settings = ["optimizer.epochs=1", "optimizer.steps_per_epoch=3", f"trigger.text={TAG}"]
    candidates = ["--triggers", root / "triggers.txt", "--n-random", 2, "--placements", "prefix"]
    commands = {
        "compare": ["tiny", "--text", root / "notes.txt", "--trigger", TAG, "--max-length", 40],
        "evaluate": ["tiny", *few, "--trigger", TAG],
        "audit": ["tiny", *few, *candidates],
        "unlearn": ["tiny/npo-backdoor", *(part for setting in settings for part in ("--set", setting))],
    }
    for name, arguments in commands.items():
        result = CliRunner().invoke(app, [name, *map(str, arguments), "--out", str(root / name)])
        assert result.exit_code == 0, result.output
    return [root / name for name in commands]


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sinks of 32 layers × 32 heads over 1024 positions, as `locate` writes them; the numbers are drawn."""
    rng, shape, length = np.random.default_rng(0), (32, 32), 1024
    names = {
        name: (("layer", "head", "position"), rng.uniform(0, 1, (*shape, length)) / np.arange(1, length + 1))
        for name in STATISTICS
    }
    coords = {"layer": np.arange(32), "head": np.arange(32), "position": np.arange(length)}
    data = xr.Dataset(
        names,
        coords,
        {"model": "large", "passages": 7, "epsilon": 0.3, "max_length": length, "backend": "tiled"},
    )
    data["passages"] = ("position", np.full(length, 7))
    data["ranked"] = ("position", find_ranked(data["passages"].values))
    data["uniform"] = (("layer", "position"), np.tile(uniform_alpha(length), (32, 1)))
    maps = np.tril(rng.uniform(0, 1, (*shape, MAX_BINS, MAX_BINS))).astype(np.float32)
    out = tmp_path_factory.mktemp("large") / "sinks"
    metadata = {"model": "large", "passages": 7, "epsilon": 0.3}
    with create_run(out, "large", "locate", metadata) as staging:
        SinkMap(data).save(staging)
        passage = (
            data[["alpha", "value_norm"]]
            .assign(pattern=(("layer", "head", "query", "key"), maps))
            .assign_attrs(bin=length // MAX_BINS)
        )
        passage.to_netcdf(staging / "passage.nc", engine="h5netcdf")
        words = pd.DataFrame(
            {"position": range(length), "token": 0, "text": [f" word{i}" for i in range(length)]}
        )
        words.to_parquet(staging / "passage.parquet", index=False)
    return out


@pytest.fixture(scope="session")
def pages(
    sinks: Path, study_page: Path, large: Path, others: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    directories = {"sinks": sinks, "large": large} | {directory.name: directory for directory in others}
    for name, directory in directories.items():
        write_report(directory, root / f"{name}.html")
    return {"study": study_page} | {name: root / f"{name}.html" for name in directories}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.report.browsing import (  # not above: without playwright it skips whoever imports it
        CHROMIUM,
        playwright,
    )

    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end nothing may have been requested, logged or thrown."""
    from tests.report.browsing import WIDE

    contexts, trouble = [], []

    def open_page(name: str, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": WIDE} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                trouble.append(f"request: {request.url}")
                if not request.url.startswith(("file:", "blob:", "data:"))
                else None
            ),
        )
        page.goto(pages[name].as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []


STATISTICS = ("alpha", "sink_rate", "value_norm", "weighted_norm")
