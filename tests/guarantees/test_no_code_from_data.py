"""No code from data: nothing that comes as a model, a benchmark, a recipe or a result is run, unless `--trust-remote-code` says so, or of
task files `--trust-task-code`."""

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
from sinkscope.unlearning.checkpoints import Checkpoints, TrainerState
from tests.guarantees.apart import measured
from tests.guarantees.reading import COMMANDS, check_refused, sinkscope

ROOT = Path(__file__).parents[2]
PICKLES = (
    "pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "tokenizer.pkl",
    "adapter_model.bin", "consolidated.00.pth",
)  # fmt: skip


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.marker, "unpickled")


def plant(directory: Path, marker: Path, names: tuple[str, ...] = PICKLES) -> None:
    for name in names:
        if name.endswith(".bin"):
            torch.save({"weight": Bomb(marker)}, directory / name)
        else:
            (directory / name).write_bytes(pickle.dumps(Bomb(marker)))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that is there as soon as planted code has run; it never must."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code from data was run"


def test_the_bomb_works(tmp_path: Path) -> None:
    plant(tmp_path, tmp_path / "marker", ("a.bin",))
    torch.load(tmp_path / "a.bin", weights_only=False)
    assert (tmp_path / "marker").read_text() == "unpickled"


def test_pickled_weights_are_refused_by_every_command(
    own: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    path, out = tmp_path / "given", tmp_path / "out"
    shutil.copytree(checkpoints["llama"], path)
    (path / "model.safetensors").unlink()
    plant(path, marker)
    for arguments in COMMANDS["model"].values():
        check_refused(
            sinkscope(*arguments(path, own), "--out", out), out, f"{path} holds pickled weights only"
        )


def test_a_pickle_that_is_called_safetensors_is_refused(
    own: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        path = tmp_path / name.replace(".", "-")
        shutil.copytree(checkpoints["llama"], path)
        plant(path, marker, (name,))
        for arguments in COMMANDS["model"].values():
            check_refused(
                sinkscope(*arguments(path, own), "--out", tmp_path / "out"), tmp_path / "out", str(path)
            )


def test_pickles_beside_a_model_are_left_alone(
    tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    shutil.copytree(checkpoints["llama"], tmp_path / "given")
    plant(tmp_path / "given", marker)
    assert load(str(tmp_path / "given")).fingerprint() == load(str(checkpoints["llama"])).fingerprint()
    assert content_hash(str(tmp_path / "given")) == content_hash(str(checkpoints["llama"]))
    assert load_meta_model(str(tmp_path / "given"))[0].num_parameters() > 0


def test_weights_that_a_configuration_names_are_no_pickle(
    tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    """transformers lets a configuration name the file of its weights."""
    shutil.copytree(checkpoints["llama"], tmp_path / "given")
    plant(tmp_path / "given", marker)
    config = json.loads((tmp_path / "given" / "config.json").read_text())
    for name in ("adapter_model.bin", "pytorch_model.bin", "../given/adapter_model.bin"):
        (tmp_path / "given" / "config.json").write_text(json.dumps(config | {"transformers_weights": name}))
        outcome = sinkscope("evaluate", tmp_path / "given", "--limit", 2, "--out", tmp_path / "out")
        check_refused(outcome, tmp_path / "out", str(tmp_path / "given"))


@pytest.mark.parametrize("name", ["rank-0.safetensors", "state.json"])
def test_a_checkpoint_of_a_killed_run_is_never_unpickled(
    name: str, tmp_path: Path, marker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither pickles beside it, nor one in the place of a file of its own, however its sums were forged."""
    layer = torch.nn.Linear(2, 2)
    weights, optimizer = dict(layer.named_parameters()), torch.optim.AdamW(layer.parameters())
    checkpoints = Checkpoints(tmp_path / "checkpoints", 1)
    checkpoints.save(TrainerState(step=3), weights, optimizer, {"random/cpu": torch.get_rng_state()})
    folder = tmp_path / "checkpoints" / "step-00000003"
    plant(folder, marker)
    assert checkpoints.resume(weights, optimizer).step == 3
    plant(folder, marker, (name,))
    with pytest.MonkeyPatch.context() as patch:
        if name != "state.json":
            patch.setattr(
                "sinkscope.unlearning.checkpoints.sha256",
                lambda path: json.loads((folder / "state.json").read_text())["state"]["files"][path.name],
            )
        assert checkpoints.resume(weights, optimizer).step == 0
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


def sneaky(directory: Path, good: Path, marker: Path) -> Path:
    """A checkpoint that brings its own code for configuration, model, tokenizer and generation."""
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
def yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks on the terminal whether code may run is told so."""
    monkeypatch.setattr("builtins.input", lambda *question: "y")


@pytest.mark.usefixtures("yes")
def test_code_that_comes_with_a_model_is_not_run(
    own: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    path = sneaky(tmp_path / "given", checkpoints["llama"], marker)
    for arguments in COMMANDS["model"].values():
        check_refused(
            sinkscope(*arguments(path, own), "--out", tmp_path / "out"), tmp_path / "out", str(path)
        )


@pytest.mark.usefixtures("yes")
def test_code_beside_a_model_of_a_known_kind_is_left_alone(
    own: Path, tmp_path: Path, marker: Path, checkpoints: dict[str, Path]
) -> None:
    path = sneaky(tmp_path / "given", checkpoints["llama"], marker)
    _change(path / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    _change(path / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert load(str(path)).n_layers == load_meta_model(str(path))[0].config.num_hidden_layers == 3
    assert content_hash(str(path)) != content_hash(str(checkpoints["llama"])), (
        "code is part of what a model is"
    )


def test_trusted_code_is_run_and_announced(own: Path, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """`compare` with nothing to compare with loads the model, and that is all."""
    path, marker = sneaky(tmp_path / "given", checkpoints["llama"], tmp_path / "marker"), tmp_path / "marker"
    arguments: list[object] = ["compare", path, "--text", own / "notes.txt", "--out", tmp_path / "out"]
    code, err, _, _ = measured([*arguments, "--trust-remote-code"], tmp_path, HF_HOME=str(tmp_path / "home"))
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


def test_code_that_comes_with_tasks_is_run_only_where_it_is_trusted(tmp_path: Path) -> None:
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
    """Every call and what it calls, by its whole name whatever it was imported as."""
    whole: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            whole |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            whole |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield whole.get(first, first) + dot + rest, node


def faults(source: str) -> list[str]:
    """What in a module could run code that is data."""
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


def test_no_module_runs_data() -> None:
    modules = [*ROOT.glob("sinkscope/**/*.py"), *ROOT.glob("analyses/**/*.py")]
    assert len(modules) > 100
    assert {
        str(path.relative_to(ROOT)): found
        for path in modules
        if (found := faults(path.read_text(encoding="utf-8")))
    } == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "exec(text)", "import pickle", "from pickle import loads", "torch.load(path)", "torch.load(path, weights_only=False)", "yaml.load(text)",
        "yaml.unsafe_load(text)", "np.load(path, allow_pickle=True)", "pd.read_pickle(path)", "subprocess.run(line, shell=True)",
        "from torch import load\nload(path)", "import torch as t\nt.load(path)", "from yaml import load as read\nread(text)",
        "from os import system\nsystem(line)", "from pandas import read_pickle as read\nread(path)", "transformers.AutoModel.from_pretrained(name)",
        "AutoConfig.from_pretrained(name)", "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_what_would_run_data_is_found(source: str) -> None:
    assert faults(source)
