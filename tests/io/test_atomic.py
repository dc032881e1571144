"""Staging directories, locks and the removal of what killed processes left."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import time
import warnings
from pathlib import Path

import pytest

from sinkscope.errors import OutputError
from sinkscope.io import atomic
from sinkscope.io.atomic import fill_directory, hold_lock, is_in_use, remove_abandoned, staging_directory


def _write_and_die(target: Path) -> None:
    with staging_directory(target, target.parent, exclusive=True) as staging:
        (staging / "file").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def _lock_and_die(path: Path) -> None:
    with hold_lock(path, wait=True):
        os.kill(os.getpid(), signal.SIGKILL)


def run_process(function, argument: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=(argument,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_what_a_killed_process_left_is_removed_and_its_locks_are_free(tmp_path) -> None:
    run_process(_write_and_die, tmp_path / "out")
    assert len(list(tmp_path.glob(".out.*.partial"))) == 1 and not is_in_use(tmp_path / "out")
    with staging_directory(tmp_path / "out", tmp_path, exclusive=True) as staging:
        assert is_in_use(tmp_path / "out")
        assert [path.name for path in tmp_path.glob("*.partial")] == [staging.name]
    assert list(tmp_path.iterdir()) == []


def test_directories_of_living_processes_and_other_targets_are_kept(tmp_path) -> None:
    other = tmp_path / f".other.{'0' * 16}.partial"
    other.mkdir()
    with staging_directory(tmp_path / "out", tmp_path) as staging:
        remove_abandoned(tmp_path / "out", tmp_path)
        assert staging.is_dir() and other.is_dir()


def test_a_lock_is_exclusive_and_freed_when_its_process_dies(tmp_path) -> None:
    run_process(_lock_and_die, tmp_path / "lock")
    with hold_lock(tmp_path / "lock", wait=False) as is_held:
        assert is_held
        with hold_lock(tmp_path / "lock", wait=False) as is_held_twice:
            assert not is_held_twice
    with hold_lock(tmp_path / "lock", wait=True) as is_held:
        assert is_held


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_files_are_written_without_locks_where_there_are_none(code: int, tmp_path, monkeypatch) -> None:
    """Without warnings or lock files; nothing is taken for abandoned or in use."""

    def flock(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    other = tmp_path / f".out.{'0' * 16}.partial"
    other.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with staging_directory(tmp_path / "out", tmp_path, exclusive=True) as staging:
            assert set(tmp_path.iterdir()) == {staging, other} and not is_in_use(tmp_path / "out")
            with staging_directory(tmp_path / "out", tmp_path, exclusive=True) as second:
                assert second.is_dir() and staging.is_dir()
        with fill_directory(tmp_path / "filled") as staging:
            (staging / "file").write_text("new")
        for wait in (False, True):
            with hold_lock(tmp_path / "lock", wait=wait) as is_held:
                assert is_held
        (tmp_path / ".out.lock").touch()
        assert not is_in_use(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {other.name, "filled", "lock", ".out.lock"}
    assert [path.name for path in (tmp_path / "filled").iterdir()] == ["file"]


def test_a_lock_is_not_taken_on_a_file_that_was_removed_meanwhile(tmp_path, monkeypatch) -> None:
    """Another process may hold the lock on the next file of that name."""
    flock = fcntl.flock

    def remove_and_lock(handle: int, operation: int) -> None:
        (tmp_path / "lock").unlink(missing_ok=True)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    assert atomic._try_lock(tmp_path / "lock") is None


def test_an_exclusive_lock_is_tried_again_after_a_moment(tmp_path, monkeypatch) -> None:
    """As `is_in_use` takes it for a moment."""
    lock = atomic._try_lock(tmp_path / ".out.lock")
    monkeypatch.setattr(time, "sleep", lambda seconds: atomic._remove_locks([lock]))
    with staging_directory(tmp_path / "out", tmp_path, exclusive=True) as staging:
        assert staging.is_dir()
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        with (
            pytest.raises(OutputError, match="is being written by another process"),
            staging_directory(tmp_path / "out", tmp_path, exclusive=True),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_files_are_moved_into_a_directory_over_older_ones(tmp_path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").write_text("kept")
    with fill_directory(tmp_path) as staging:
        (staging / "a").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "kept"}


def test_a_parent_that_is_a_file_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="choose another directory"),
        staging_directory(tmp_path / "file" / "out", tmp_path / "file"),
    ):
        pass
