"""The scripts of the page: valid modules, imports that fit exports, no markup from text, one scope."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from sinkscope.report.page import ASSETS, MODULES, bundle_scripts

NODE = shutil.which("node")
SOURCES = {name: (ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in MODULES}
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', re.M)
EXPORT = re.compile(r"^export (?:const|class) \{? ?(\w+)", re.M)
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.html\(")


def test_every_script_is_in_the_bundle() -> None:
    assert {path.stem for path in ASSETS.glob("*.js")} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_exported_by_earlier_modules_and_used(name: str) -> None:
    source = SOURCES[name]
    body = IMPORT.sub("", source)
    assert not re.search(r"^import", body, re.M)
    for names, module in IMPORT.findall(source):
        assert MODULES.index(module) < MODULES.index(name)
        for imported in filter(None, (each.strip() for each in names.split(","))):
            assert imported in EXPORT.findall(SOURCES[module])
            assert re.search(rf"\b{imported}\b", body), f"{imported} is not used"


@pytest.mark.parametrize("name", MODULES)
def test_exports_are_used_elsewhere(name: str) -> None:
    others = "\n".join(source for other, source in SOURCES.items() if other != name)
    for exported in EXPORT.findall(SOURCES[name]):
        assert re.search(rf"\b{exported}\b", others), exported


@pytest.mark.parametrize("name", MODULES)
def test_text_never_becomes_markup_and_lines_are_short(name: str) -> None:
    assert not MARKUP.search(SOURCES[name])
    assert max(map(len, SOURCES[name].splitlines())) <= 128


def test_the_bundle_has_one_private_scope() -> None:
    bundle = bundle_scripts(MODULES)
    assert bundle.startswith('(() => {\n"use strict";\n')
    assert bundle.endswith("})();")
    assert not re.search(r"^(?:import|export)\b", bundle, re.M)
    assert "</script" not in bundle.lower()


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("name", [*MODULES, "bundle"])
def test_node_accepts_the_syntax(name: str) -> None:
    """Also that no two modules declare the same name, which one scope forbids."""
    source = bundle_scripts(MODULES) if name == "bundle" else SOURCES[name]
    kind = ["--input-type=commonjs"] if name == "bundle" else ["--input-type=module"]
    assert NODE is not None
    result = subprocess.run([NODE, *kind, "--check"], input=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
