"""Run directories are complete or absent, identified by their configuration, and unchanged."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from sinkscope.errors import OutputError
from sinkscope.io.run_directory import (
    MANIFEST,
    config_hash,
    create_or_load,
    create_run,
    is_complete,
    read_manifest,
)
from sinkscope.schema import KINDS, to_markdown, version_of


def write_run(directory: Path, run_id: str = "abc", content: str = "hello") -> None:
    with create_run(directory, run_id, kind="locate") as staging:
        (staging / "deep").mkdir()
        (staging / "deep" / "file.txt").write_text(content)


def read_content(directory: Path) -> str:
    return (directory / "file.txt").read_text()


def write_content(directory: Path) -> dict[str, int]:
    (directory / "file.txt").write_text("content")
    return {"measured": 3}


def test_a_run_is_built_once_and_then_loaded(tmp_path) -> None:
    out = tmp_path / "run"
    config = {"model": "m", "epsilon": 0.3}
    assert create_or_load(out, "locate", config, write_content, read_content, metadata={"n": 1}) == "content"
    manifest = read_manifest(out)
    assert manifest is not None
    assert (manifest["kind"], manifest["schema"]) == ("locate", version_of("locate"))
    assert (manifest["n"], manifest["measured"]) == (1, 3)
    assert manifest["identity"] == config_hash("locate", **config)
    assert create_or_load(out, "locate", config, pytest.fail, read_content) == "content"
    with pytest.raises(OutputError, match="another run's results"):
        create_or_load(out, "locate", config | {"epsilon": 0.2}, write_content, read_content)


def test_another_run_of_the_same_kind_is_replaced_on_request(tmp_path) -> None:
    write_run(tmp_path / "run")
    create_or_load(tmp_path / "run", "locate", {}, write_content, read_content, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["file.txt", MANIFEST]
    with pytest.raises(OutputError, match="another run's results"):
        create_or_load(tmp_path / "run", "compare", {}, write_content, read_content, overwrite=True)


@pytest.mark.parametrize(("kind", "schema"), [("locate", 3), ("quickstart", 2)])
def test_results_of_another_version_are_refused_with_the_command(tmp_path, kind, schema) -> None:
    manifest = {"identity": "abc", "kind": kind, "schema": schema, "files": {}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        OutputError, match=rf"another version .*'{kind}', schema {schema}.*; remove it and make"
    ):
        read_manifest(tmp_path)


def test_results_of_another_version_are_replaced_on_request(tmp_path) -> None:
    manifest = {"identity": "abc", "kind": "locate", "schema": 1, "files": {}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert create_or_load(tmp_path, "locate", {}, write_content, read_content, overwrite=True) == "content"


def test_the_table_of_kinds_has_a_row_for_each() -> None:
    lines = to_markdown().splitlines()
    assert len(lines) == len(KINDS) + 2
    assert all(
        f"| {kind} | {KINDS[kind].version} |" in line for kind, line in zip(KINDS, lines[2:], strict=True)
    )


def test_a_run_is_absent_until_it_is_complete(tmp_path) -> None:
    out = tmp_path / "run"
    with create_run(out, "abc", kind="locate") as staging:
        (staging / "file.txt").write_text("x")
        assert not out.exists()
    assert read_manifest(out)["identity"] == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failure_leaves_nothing(tmp_path) -> None:
    with pytest.raises(RuntimeError), create_run(tmp_path / "run", "abc", kind="locate") as staging:
        (staging / "file.txt").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_complete_run_is_recognized_and_another_is_protected(tmp_path) -> None:
    out = tmp_path / "run"
    assert not is_complete(out, "abc")
    write_run(out)
    assert is_complete(out, "abc")
    with pytest.raises(OutputError, match="another run's results"):
        is_complete(out, "xyz")


def test_directories_with_other_files_are_not_changed(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="holds no run"):
        is_complete(tmp_path, "abc")
    with pytest.raises(OutputError, match="is a file"):
        is_complete(tmp_path / "thesis.tex", "abc")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_complete(empty, "abc")
    write_run(empty)
    assert is_complete(empty, "abc")


def test_a_link_to_an_empty_directory_is_kept(tmp_path) -> None:
    (tmp_path / "disk" / "results").mkdir(parents=True)
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "disk" / "results")
    for content in ("hello", "again"):
        assert not is_complete(out, content)
        with create_run(out, content, kind="locate", overwrite=True) as staging:
            (staging / "file.txt").write_text(content)
        assert out.is_symlink() and is_complete(out, content)
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["results"]
        (out / MANIFEST).unlink()
        (out / "file.txt").unlink()


def test_paths_that_cannot_be_replaced_are_refused_early(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), tmp_path):
        with pytest.raises(OutputError, match=f"output {path} is the current directory"):
            is_complete(path, "abc")
    write_run(tmp_path / "run")
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    assert is_complete(tmp_path / "run", "abc")
    (tmp_path / "disk").mkdir()
    with pytest.raises(OutputError, match="disk is a mount point"):
        is_complete(tmp_path / "disk", "abc")


@pytest.mark.parametrize("damage", ["change", "delete", "manifest"])
def test_damage_is_detected_and_the_file_named(tmp_path, damage) -> None:
    out = tmp_path / "run"
    write_run(out)
    file = out / "deep" / "file.txt"
    if damage == "change":
        file.write_text("hellO")
    elif damage == "delete":
        file.unlink()
    else:
        (out / MANIFEST).write_text(json.dumps({"files": {}})[:-1])
    with pytest.raises(OutputError, match="run.json" if damage == "manifest" else "file.txt"):
        is_complete(out, "abc")


@pytest.mark.parametrize(
    "change", [{"identity": 3}, {"kind": []}, {"versions": "1.0"}, {"files": ["a"]}, {"schema": "4"}]
)
def test_a_manifest_of_other_types_is_damaged(tmp_path, change) -> None:
    manifest = {"identity": "abc", "kind": "locate", "schema": 4, "files": {}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | change))
    with pytest.raises(OutputError, match=r"run.json is damaged"):
        read_manifest(tmp_path)


def test_a_manifest_of_absurd_size_is_not_read(tmp_path) -> None:
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OutputError, match=r"run.json cannot be read: it has 1,000,000,000,000 bytes"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
    ],
)
def test_errors_of_the_operating_system_are_one_line(tmp_path, code, message) -> None:
    with pytest.raises(OutputError, match=message), create_run(tmp_path / "run", "abc", kind="locate"):
        raise OSError(code, "refused")
    assert list(tmp_path.iterdir()) == []


def test_a_second_exclusive_writer_is_refused(tmp_path) -> None:
    with create_run(tmp_path / "run", "abc", kind="locate", exclusive=True) as staging:
        (staging / "file.txt").write_text("x")
        with (
            pytest.raises(OutputError, match="run is being written by another process"),
            create_run(tmp_path / "run", "abc", kind="locate", exclusive=True),
        ):
            pass
        with create_run(tmp_path / "another", "abc", kind="locate", exclusive=True):
            pass
    assert is_complete(tmp_path / "run", "abc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "run"]


def test_a_run_that_could_not_be_replaced_stays(tmp_path, monkeypatch) -> None:
    write_run(tmp_path / "run", "old")
    replace = os.replace

    def refuse(source, target) -> None:
        if target == tmp_path / "run" and "replaced" not in str(source):
            raise OSError(errno.ENOSPC, "refused")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(OutputError, match="no space left"),
        create_run(tmp_path / "run", "new", kind="locate", overwrite=True),
    ):
        pass
    assert is_complete(tmp_path / "run", "old") and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_hash_depends_on_kind_and_every_part_but_not_on_their_order() -> None:
    assert config_hash("locate", a=1, b={"x": 2}) == config_hash("locate", b={"x": 2}, a=1)
    assert len({config_hash("locate", a=1), config_hash("locate", a=2), config_hash("compare", a=1)}) == 3
