"""The page as a file: complete, escaped, limited to its own scripts, reproducible; refused for bad input."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sinkscope.errors import OutputError
from sinkscope.report import write_report
from sinkscope.sinks.sink_map import SinkMap
from tests.analyses.fake import HOSTILE
from tests.commands import run
from tests.report.conftest import HOSTILE_NAME, TAG
from tests.report.pages import DATA, read_page, report_page, without_scripts
from tests.report.test_payload import decode

FIGURE = re.compile(r'<img alt="[^"<]*" src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]*">')


def test_the_page_of_sinks_has_their_numbers(sinks: Path, tmp_path: Path) -> None:
    _, data = report_page(sinks, tmp_path / "page.html")
    view = data["views"][0]
    expected = SinkMap.read(sinks).data
    for name in ("alpha", "sink_rate", "value_norm", "weighted_norm", "entropy"):
        values = expected[name].values
        np.testing.assert_allclose(decode(view["statistics"][name]), values, atol=np.nanmax(values) / 5e4)
    passage = xr.load_dataset(sinks / "passage.nc", engine="h5netcdf")
    queries, keys = np.tril_indices(40)
    cells = passage["pattern"].values[:, :, queries, keys]
    np.testing.assert_allclose(decode(view["pattern"]["cells"]), cells, atol=1e-4)
    np.testing.assert_allclose(passage["pattern"].sum("key").values, 1, atol=1e-5)
    assert "".join(view["tokens"]).replace("<s>", "").strip().startswith(HOSTILE[:20])
    names = {table["name"] for table in data["tables"]}
    assert names >= {"positions", "heads", "token_kinds", "massive_activations"}


def test_text_of_models_and_data_stays_text(sinks: Path, study_page: Path, tmp_path: Path) -> None:
    """The data are JSON without `<`; text in the markup is escaped; all scripts are those of the page."""
    for text, data in (report_page(sinks, tmp_path / "page.html"), read_page(study_page)):
        is_study = data["comparison"] is not None
        assert not is_study or HOSTILE in json.dumps(data, ensure_ascii=False)
        assert "<" not in DATA.search(text)[1]
        markup = without_scripts(text)
        assert len(FIGURE.findall(markup)) == len(data["figures"])
        assert "<img" not in FIGURE.sub("", markup)
        assert html.escape(HOSTILE_NAME) in markup


def test_the_policy_allows_only_the_scripts_of_the_page(
    sinks: Path, study_page: Path, tmp_path: Path
) -> None:
    for text, _ in (report_page(sinks, tmp_path / "page.html"), read_page(study_page)):
        policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
        scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
        digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
        hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
        assert len(scripts) == 2, "plotly and one bundle"
        assert policy.split("; ") == [
            "default-src 'none'",
            f"script-src {' '.join(hashes)}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
        markup = without_scripts(text)
        assert not re.search(r"<(?:link|iframe|object|embed|base)\b|\bsrc=['\"]?https?:", markup)


@pytest.mark.parametrize(("table", "column"), [("runs", "trigger"), ("captures/attention", "job")])
def test_a_study_of_an_older_sinkscope_must_be_gathered_again(
    study: Path, tmp_path: Path, table: str, column: str
) -> None:
    old = Path(shutil.copytree(study, tmp_path / "old"))
    path = old / f"{table}.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    manifest = json.loads((old / "run.json").read_text())
    del manifest["files"][f"{table}.parquet"], manifest["files"]["run.json"]
    (old / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="make them again with this version of sinkscope"):
        write_report(old, tmp_path / "page.html")


def test_the_same_results_give_the_same_bytes(
    study: Path, study_page: Path, others: list[Path], tmp_path: Path
) -> None:
    assert write_report(study, tmp_path / "again.html") < 10e6
    assert (tmp_path / "again.html").read_bytes() == study_page.read_bytes()
    for directory in others:
        for name in ("first", "second"):
            write_report(directory, tmp_path / f"{name}.html")
        assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_a_large_model_stays_below_25_megabytes(large: Path, tmp_path: Path) -> None:
    assert write_report(large, tmp_path / "page.html") < 25e6


def test_a_page_without_charts_does_without_plotly(others: list[Path], tmp_path: Path) -> None:
    for directory in others:
        text, page = report_page(directory, tmp_path / "page.html")
        scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
        assert len(scripts) == (2 if page["views"] else 1)
        assert page["views"] or len(text) < 10**6


def test_every_kind_of_results_has_its_page(others: list[Path], tmp_path: Path) -> None:
    for directory in others:
        text, page = report_page(directory, tmp_path / f"{directory.name}.html")
        assert page["tables"]
        assert page["figures"] or page["views"]
        assert "<img" not in FIGURE.sub("", without_scripts(text))
        assert TAG in json.dumps(page, ensure_ascii=False) + html.unescape(text)


def test_bad_input_is_one_line(sinks: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """No results, changed results, an output that is another file or in the results; nothing is written."""
    broken = Path(shutil.copytree(sinks, tmp_path / "broken"))
    (broken / "sinks.nc").write_bytes((sinks / "sinks.nc").read_bytes()[:-1])
    (tmp_path / "notes.html").write_text("<p>notes</p>")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = [
        ([tmp_path / "nothing"], "nothing does not exist; give a directory"),
        ([tmp_path], "holds no complete results"),
        ([broken], "sinks.nc"),
        ([sinks, "--out", tmp_path / "notes.html"], "is not a page of sinkscope; choose another"),
        ([sinks, "--out", tmp_path], "is not a page of sinkscope"),
        ([sinks, "--out", tmp_path / "pipe"], "is not a page of sinkscope"),
        ([tmp_path / "loop"], "loop does not exist"),
        ([sinks, "--out", sinks / "page.html"], "is inside"),
    ]
    monkeypatch.chdir(tmp_path)
    for arguments, message in cases:
        code, stdout, stderr = run(capsys, monkeypatch, "report", *arguments)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1), arguments
        assert message in stderr, arguments
    assert (tmp_path / "notes.html").read_text() == "<p>notes</p>"
    assert not (sinks / "page.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "notes.html", "pipe", "loop"}


def test_a_page_replaces_an_older_one(
    sinks: Path, study_page: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    page = Path(shutil.copy(study_page, tmp_path / "page.html"))
    code, stdout, _ = run(capsys, monkeypatch, "report", sinks, "--out", page, "--json")
    assert code == 0
    assert json.loads(stdout) == {"page": str(page), "bytes": page.stat().st_size}
    assert "Sink atlas" in page.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [page]


def test_a_complete_page_ends_with_a_line_break(study: Path, tmp_path: Path) -> None:
    write_report(study, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes().endswith(b"</html>\n")
