"""Run directories: complete or absent, and unchanged since."""

from __future__ import annotations

import errno
import json

import pytest

from sinkscope.errors import OutputError
from sinkscope.runs import MANIFEST, identity, is_done, read_manifest, writing


def write(directory, name="abc", content="hello"):
    with writing(directory, name, kind="test") as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "file.txt").write_text(content)


def test_a_run_is_absent_until_it_is_complete(tmp_path) -> None:
    out = tmp_path / "run"
    with writing(out, "abc") as aside:
        (aside / "file.txt").write_text("x")
        assert not out.exists()
    assert read_manifest(out)["identity"] == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failure_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "run", "abc") as aside:
        (aside / "file.txt").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_recognised_and_another_is_protected(tmp_path) -> None:
    out = tmp_path / "run"
    assert not is_done(out, "abc")
    write(out)
    assert is_done(out, "abc")
    with pytest.raises(OutputError, match="another run's results"):
        is_done(out, "xyz")


def test_directories_with_other_things_are_not_touched(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="holds no run"):
        is_done(tmp_path, "abc")
    with pytest.raises(OutputError, match="is a file"):
        is_done(tmp_path / "thesis.tex", "abc")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_done(empty, "abc")
    write(empty)
    assert is_done(empty, "abc")


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
        is_done(out, "abc")


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")])
def test_the_operating_systems_refusals_are_one_line(tmp_path, code, message) -> None:
    with pytest.raises(OutputError, match=message), writing(tmp_path / "run", "abc"):
        raise OSError(code, "refused")
    assert list(tmp_path.iterdir()) == []


def test_identity_depends_on_every_part_but_not_on_their_order() -> None:
    assert identity(a=1, b={"x": 2}) == identity(b={"x": 2}, a=1)
    assert identity(a=1) != identity(a=2)
