"""Code in models, benchmarks, recipes and results is not run without `--trust-remote-code`.

Task files need `--trust-task-code`.
"""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sinkscope.config import parse_yaml
from sinkscope.models.model import content_hash, load, load_meta_model
from sinkscope.unlearning.checkpoints import Checkpoints
from tests.guarantees.apart import run_measured
from tests.guarantees.reading import COMMANDS, check_refused, sinkscope

ROOT = Path(__file__).parents[2]
PICKLES = (
    "pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "optimizer.pt", "scheduler.pt",
    "rng_state.pth", "training_args.bin", "tokenizer.pkl", "adapter_model.bin", "consolidated.00.pth",
)  # fmt: skip


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.marker, "unpickled")


def write_pickles(directory: Path, marker: Path, names: tuple[str, ...] = PICKLES) -> None:
    for name in names:
        if name.endswith(".bin"):
            torch.save({"weight": Bomb(marker)}, directory / name)
        else:
            (directory / name).write_bytes(pickle.dumps(Bomb(marker)))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that code from data would create; the test fails if it exists at the end."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code from data was run"


def test_unpickling_a_bomb_runs_its_code(tmp_path: Path) -> None:
    write_pickles(tmp_path, tmp_path / "marker", ("a.bin",))
    torch.load(tmp_path / "a.bin", weights_only=False)
    assert (tmp_path / "marker").read_text() == "unpickled"


def test_pickled_weights_are_refused_by_every_command(
    good_inputs: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    path, out = tmp_path / "input", tmp_path / "out"
    shutil.copytree(checkpoints["llama"], path)
    (path / "model.safetensors").unlink()
    write_pickles(path, marker)
    for arguments in COMMANDS["model"].values():
        check_refused(
            sinkscope(*arguments(path, good_inputs), "--out", out), out, f"{path} holds pickled weights only"
        )


def test_a_pickle_with_the_name_of_another_file_is_refused(
    good_inputs: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        path = tmp_path / name.replace(".", "-")
        shutil.copytree(checkpoints["llama"], path)
        write_pickles(path, marker, (name,))
        for arguments in COMMANDS["model"].values():
            check_refused(
                sinkscope(*arguments(path, good_inputs), "--out", tmp_path / "out"),
                tmp_path / "out",
                str(path),
            )


def test_pickles_in_the_directory_of_a_model_are_ignored(
    tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    shutil.copytree(checkpoints["llama"], tmp_path / "input")
    write_pickles(tmp_path / "input", marker)
    assert load(str(tmp_path / "input")).fingerprint() == load(str(checkpoints["llama"])).fingerprint()
    assert content_hash(str(tmp_path / "input")) == content_hash(str(checkpoints["llama"]))
    assert load_meta_model(str(tmp_path / "input"))[0].num_parameters() > 0


def test_pickled_weights_that_a_configuration_names_are_refused(
    tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    """In transformers a configuration can name the file of the weights."""
    shutil.copytree(checkpoints["llama"], tmp_path / "input")
    write_pickles(tmp_path / "input", marker)
    config = json.loads((tmp_path / "input" / "config.json").read_text())
    for name in ("adapter_model.bin", "pytorch_model.bin", "../input/adapter_model.bin"):
        (tmp_path / "input" / "config.json").write_text(json.dumps(config | {"transformers_weights": name}))
        options = ["--benchmark", "tiny", "--limit", 2, "--out", tmp_path / "out"]
        outcome = sinkscope("evaluate", tmp_path / "input", *options)
        check_refused(outcome, tmp_path / "out", str(tmp_path / "input"))


@pytest.mark.parametrize("name", ["rank-0.safetensors", "state.json"])
def test_a_checkpoint_of_a_killed_run_is_never_unpickled(
    name: str, tmp_path: Path, marker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither additional pickles, nor one that replaces a file of the checkpoint with a forged checksum."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", 1)
    checkpoints.save(3, [], {"random/cpu": torch.get_rng_state()}, {})
    folder = tmp_path / "checkpoints" / "step-00000003"
    write_pickles(folder, marker)
    loaded = checkpoints.load()
    assert loaded and loaded.step == 3
    write_pickles(folder, marker, (name,))
    with pytest.MonkeyPatch.context() as patch:
        if name != "state.json":
            patch.setattr(
                "sinkscope.unlearning.checkpoints.sha256",
                lambda path: json.loads((folder / "state.json").read_text())["state"]["files"][path.name],
            )
        assert checkpoints.load() is None
    assert "is damaged" in caplog.text and "is not used" in caplog.text


CODE = """
from pathlib import Path
Path({marker!r}).write_text("imported")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class SneakyConfig(LlamaConfig):
    model_type = "sneaky"
class SneakyForCausalLM(LlamaForCausalLM):
    config_class = SneakyConfig
class SneakyTokenizer(PreTrainedTokenizerFast):
    pass
def generate(model, **options):
    pass
"""


def checkpoint_with_code(directory: Path, good: Path, marker: Path) -> Path:
    """A checkpoint with code for its configuration, model, tokenizer and generation."""
    shutil.copytree(good, directory)
    for module in ("configuration_sneaky", "modeling_sneaky", "tokenization_sneaky"):
        (directory / f"{module}.py").write_text(CODE.format(marker=str(marker)))
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    auto = {
        "AutoConfig": "configuration_sneaky.SneakyConfig",
        "AutoModelForCausalLM": "modeling_sneaky.SneakyForCausalLM",
    }
    tokenizer = ["tokenization_sneaky.SneakyTokenizer", "tokenization_sneaky.SneakyTokenizer"]
    _change(
        directory / "config.json", model_type="sneaky", auto_map=auto, architectures=["SneakyForCausalLM"]
    )
    _change(
        directory / "tokenizer_config.json",
        auto_map={"AutoTokenizer": tokenizer},
        tokenizer_class="SneakyTokenizer",
    )
    return directory


def _change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def confirm_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer yes if a library asks on the terminal whether code may run."""
    monkeypatch.setattr("builtins.input", lambda *question: "y")


@pytest.mark.usefixtures("confirm_prompts")
def test_code_of_a_model_is_not_run(
    good_inputs: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    path = checkpoint_with_code(tmp_path / "input", checkpoints["llama"], marker)
    for arguments in COMMANDS["model"].values():
        check_refused(
            sinkscope(*arguments(path, good_inputs), "--out", tmp_path / "out"), tmp_path / "out", str(path)
        )


@pytest.mark.usefixtures("confirm_prompts")
def test_code_in_the_directory_of_a_known_model_type_is_ignored(
    good_inputs: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    path = checkpoint_with_code(tmp_path / "input", checkpoints["llama"], marker)
    _change(path / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    _change(path / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert load(str(path)).n_layers == load_meta_model(str(path))[0].config.num_hidden_layers == 3
    assert content_hash(str(path)) != content_hash(str(checkpoints["llama"])), (
        "the hash of a model covers its code"
    )


def test_trusted_code_is_run_and_announced(
    good_inputs: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """`compare` without a second model loads the first one and fails."""
    path, marker = (
        checkpoint_with_code(tmp_path / "input", checkpoints["llama"], tmp_path / "marker"),
        tmp_path / "marker",
    )
    arguments: list[object] = [
        "compare",
        path,
        "--text",
        good_inputs / "notes.txt",
        "--out",
        tmp_path / "out",
    ]
    code, err, _, _ = run_measured(
        [*arguments, "--trust-remote-code"], tmp_path, HF_HOME=str(tmp_path / "home")
    )
    assert (code, marker.exists()) == (2, True), err
    announced, refused = err.splitlines()
    assert announced.endswith(f"model {path}: Python code of the checkpoint may run now (trust_remote_code)")
    assert "has nothing to be compared with" in refused


TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: DIRECTORY/rows.jsonl}}
test_split: test
output_type: multiple_choice
process_docs: !function utils.kept
doc_to_text: "{{question}}"
doc_to_target: 0
doc_to_choice: [a, b]
metric_list: [{metric: acc}]
"""


def test_code_of_tasks_is_run_only_if_it_is_trusted(tmp_path: Path) -> None:
    path, marker, out = tmp_path / "tasks", tmp_path / "marker", tmp_path / "out"
    path.mkdir()
    (path / "mine.yaml").write_text(TASK.replace("DIRECTORY", str(path)))
    (path / "rows.jsonl").write_text('{"question": "Who walked?"}\n')
    (path / "utils.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef kept(docs):\n    return docs\n")
    arguments: list[object] = ["evaluate", "tiny", "--harness", "mine", "--tasks", path, "--out", out]
    check_refused(
        sinkscope(*arguments),
        out,
        f"--tasks {path} holds task files, which can run Python code; read them, then set --trust-task-code",
    )
    assert not marker.exists()
    outcome = sinkscope(*arguments, "--trust-task-code")
    assert (outcome.code, marker.exists(), out.is_dir()) == (0, True, True), outcome


@pytest.mark.parametrize(
    "tag",
    ["object/apply:os.system", "object/new:os.system", "name:os.system", "module:os", "object:os.system"],
)
def test_yaml_makes_no_objects(tag: str) -> None:
    with pytest.raises(ValueError, match="could not determine a constructor"):
        parse_yaml(f"seed: !!python/{tag} [touch marker]")


FORBIDDEN = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """The full name of what is called, resolving import aliases, and the call."""
    full_names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full_names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full_names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield full_names.get(first, first) + dot + rest, node


def unsafe_code(source: str) -> list[str]:
    """What in a module could run code from data."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        found += [f"imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
    for name, call in _calls(tree):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        last = name.rpartition(".")[2]
        if (
            name in FORBIDDEN
            or last in ("read_pickle", "to_pickle", "unsafe_load", "full_load")
            or name in ("os.system", "os.popen")
        ):
            found.append(name)
        if name.endswith("yaml.load") or (name == "torch.load" and keywords.get("weights_only") != "True"):
            found.append(name)
        if keywords.get("allow_pickle", "False") != "False" or keywords.get("shell", "False") != "False":
            found.append(f"{name} with {keywords}")
        auto = any(part.startswith("Auto") for part in name.split(".")) and last in (
            "from_pretrained",
            "from_config",
        )
        if auto and keywords.get("trust_remote_code") not in ("False", "trust_remote_code"):
            found.append(f"{name} leaves trust_remote_code open")
    return found


def test_no_module_runs_code_from_data() -> None:
    modules = [*ROOT.glob("sinkscope/**/*.py"), *ROOT.glob("analyses/**/*.py")]
    assert len(modules) > 100
    assert {
        str(path.relative_to(ROOT)): found
        for path in modules
        if (found := unsafe_code(path.read_text(encoding="utf-8")))
    } == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "exec(text)", "import pickle", "from pickle import loads", "torch.load(path)",
        "torch.load(path, weights_only=False)", "yaml.load(text)", "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)", "pd.read_pickle(path)", "subprocess.run(line, shell=True)",
        "from torch import load\nload(path)", "import torch as t\nt.load(path)",
        "from yaml import load as read\nread(text)", "from os import system\nsystem(line)",
        "from pandas import read_pickle as read\nread(path)", "transformers.AutoModel.from_pretrained(name)",
        "AutoConfig.from_pretrained(name)", "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_unsafe_code_is_found(source: str) -> None:
    assert unsafe_code(source)
