"""The package can be imported where the modules of Unix do not exist."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

UNIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")
WITHOUT_UNIX = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {UNIX_MODULES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {UNIX_MODULES}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocker())
"""
WRITE = """
import warnings
from pathlib import Path
from sinkscope.io.run_directory import create_run, is_complete
warnings.simplefilter("ignore")
for exclusive in (True, False):
    with create_run(Path("run"), "a", "locate", exclusive=exclusive, overwrite=True) as staging:
        (staging / "file.txt").write_text("x")
    assert is_complete(Path("run"), "a")
assert [path.name for path in Path().iterdir()] == ["run"], list(Path().iterdir())
"""


@pytest.mark.parametrize(
    "code",
    [
        "import sinkscope",
        "import sinkscope.io.atomic, sinkscope.config, sinkscope.schema",
        "from sinkscope.cli.main import main",
        "import sinkscope.studies.jobs",
        WRITE,
    ],
)
def test_imports_without_unix_modules(code: str, tmp_path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WITHOUT_UNIX + code]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert process.returncode == 0, process.stderr
