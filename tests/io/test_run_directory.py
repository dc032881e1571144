"""Run directories: complete or absent, and unchanged since."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from sinkscope.errors import OutputError
from sinkscope.io.run_directory import MANIFEST, config_hash, create_run, is_complete, read_manifest


def write(directory, name="abc", content="hello"):
    with create_run(directory, name, kind="locate") as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "file.txt").write_text(content)


def test_a_run_is_absent_until_it_is_complete(tmp_path) -> None:
    out = tmp_path / "run"
    with create_run(out, "abc", kind="locate") as aside:
        (aside / "file.txt").write_text("x")
        assert not out.exists()
    assert read_manifest(out)["identity"] == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failure_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(RuntimeError), create_run(tmp_path / "run", "abc", kind="locate") as aside:
        (aside / "file.txt").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_recognized_and_another_is_protected(tmp_path) -> None:
    out = tmp_path / "run"
    assert not is_complete(out, "abc")
    write(out)
    assert is_complete(out, "abc")
    with pytest.raises(OutputError, match="another run's results"):
        is_complete(out, "xyz")


def test_directories_with_other_things_are_not_touched(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="holds no run"):
        is_complete(tmp_path, "abc")
    with pytest.raises(OutputError, match="is a file"):
        is_complete(tmp_path / "thesis.tex", "abc")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_complete(empty, "abc")
    write(empty)
    assert is_complete(empty, "abc")


def test_a_link_to_an_empty_directory_is_written_through(tmp_path) -> None:
    (tmp_path / "disk" / "results").mkdir(parents=True)
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "disk" / "results")
    for content in ("hello", "again"):
        assert not is_complete(out, content)
        with create_run(out, content, kind="locate", overwrite=True) as aside:
            (aside / "file.txt").write_text(content)
        assert out.is_symlink() and is_complete(out, content)
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["results"]
        (out / MANIFEST).unlink()
        (out / "file.txt").unlink()


def test_places_that_cannot_be_replaced_are_refused_before_the_work(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path(), tmp_path):
        with pytest.raises(OutputError, match=f"output {place} is the current directory"):
            is_complete(place, "abc")
    write(tmp_path / "run")
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    assert is_complete(tmp_path / "run", "abc")
    (tmp_path / "disk").mkdir()
    with pytest.raises(OutputError, match="disk is a mount point"):
        is_complete(tmp_path / "disk", "abc")


@pytest.mark.parametrize("damage", ["change", "delete", "manifest"])
def test_damage_is_noticed_and_named(tmp_path, damage) -> None:
    out = tmp_path / "run"
    write(out)
    file = out / "deep" / "file.txt"
    if damage == "change":
        file.write_text("hellO")
    elif damage == "delete":
        file.unlink()
    else:
        (out / MANIFEST).write_text(json.dumps({"files": {}})[:-1])
    with pytest.raises(OutputError, match="run.json" if damage == "manifest" else "file.txt"):
        is_complete(out, "abc")


@pytest.mark.parametrize("change", [{"identity": 3}, {"kind": []}, {"versions": "1.0"}, {"files": ["a"]}])
def test_a_manifest_of_other_types_is_damaged(tmp_path, change) -> None:
    (tmp_path / MANIFEST).write_text(
        json.dumps({"identity": "abc", "kind": "locate", "schema": 4, "files": {}} | change)
    )
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
def test_the_operating_systems_refusals_are_one_line(tmp_path, code, message) -> None:
    with pytest.raises(OutputError, match=message), create_run(tmp_path / "run", "abc", kind="locate"):
        raise OSError(code, "refused")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_another_is_at_work_on_is_refused_where_that_matters(tmp_path) -> None:
    with create_run(tmp_path / "run", "abc", kind="locate", exclusive=True) as aside:
        (aside / "file.txt").write_text("x")
        with (
            pytest.raises(OutputError, match="run is being written by another process"),
            create_run(tmp_path / "run", "abc", kind="locate", exclusive=True),
        ):
            pass
        with create_run(tmp_path / "another", "abc", kind="locate", exclusive=True):
            pass
    assert is_complete(tmp_path / "run", "abc") and sorted(path.name for path in tmp_path.iterdir()) == [
        "another",
        "run",
    ]


def test_what_could_not_be_replaced_stays(tmp_path, monkeypatch) -> None:
    write(tmp_path / "run", "old")
    replace = os.replace

    def refused(source, target) -> None:
        if target == tmp_path / "run" and "replaced" not in str(source):
            raise OSError(errno.ENOSPC, "refused")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with (
        pytest.raises(OutputError, match="no space left"),
        create_run(tmp_path / "run", "new", kind="locate", overwrite=True),
    ):
        pass
    assert is_complete(tmp_path / "run", "old") and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_identity_depends_on_every_part_but_not_on_their_order() -> None:
    assert config_hash("locate", a=1, b={"x": 2}) == config_hash("locate", b={"x": 2}, a=1)
    assert config_hash("locate", a=1) != config_hash("locate", a=2)
