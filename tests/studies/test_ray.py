"""The Ray executor: the same tables as in one process, also if a node is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sinkscope.errors import StudyError
from sinkscope.studies.executors import run_on_ray
from sinkscope.studies.jobs import Job, Store
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import run_study
from tests.studies.running import RecordedProgress, finish, tables
from tests.studies.small import FEW, given

ROOT = Path(__file__).parents[2]


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        StudyError, match=r'executor ray needs the package; pip install "sinkscope\[ray\]"'
    ) as caught:
        run_on_ray("auto")
    assert "\n" not in str(caught.value)


def test_without_a_cluster_it_is_said_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        StudyError,
        match=r"no Ray cluster answers at 'auto' \(.*\); start one with `ray start --head`, or use",
    ) as caught:
        run_on_ray("auto")([], Store(tmp_path), RecordedProgress())
    assert "\n" not in str(caught.value)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that takes no jobs and two nodes that take one at a time, started in another directory
    than the study is."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    monkeypatch.chdir(tmp_path)
    yield made, nodes
    made.shutdown()


@pytest.mark.slow
def test_a_study_on_a_cluster_that_loses_a_node_is_the_study_of_one_process(
    cluster: Any, tmp_path: Path
) -> None:
    """Model and benchmark are named by relative paths. A failed job is reported as in one process."""
    ray_cluster, nodes = cluster
    names = {key: Path(value).name for key, value in given(tmp_path).items()}
    values = {
        "seeds": [0, 1, 2],
        "evaluations": {"few": {"metrics": ["verbmem"], "limit": 3}},
        "grids": {
            "poisoned": {"set": FEW | names, "evaluations": ["few"]},
            "unlearned": {
                "set": FEW | names | {"poison_ratio": 0},
                "evaluations": ["few"],
                "compare_to": "unlearned",
            },
        },
    }
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(values))
    finish("spec.yaml", tmp_path / "local", tmp_path / "store-local")

    class Losing(RecordedProgress):
        def finished(self, job: Job, is_new: bool) -> None:
            super().finished(job, is_new)
            if len(self.new) == 3:
                ray_cluster.remove_node(nodes[0], allow_graceful=False)

    progress, store = Losing(), Store(tmp_path / "store")
    run_study(
        Spec.read(spec),
        tmp_path / "spread",
        store,
        executor=run_on_ray(ray_cluster.address),
        progress=progress,
    )
    assert len(progress.new) == 15 and not progress.failures and not progress.found
    assert len(ray_cluster.worker_nodes) == 1
    assert tables(tmp_path / "spread") == tables(tmp_path / "local")
    failing = [
        Job("perturb", {"perturbation": "int8", "model": "nowhere/at/all"}),
        Job("perturb", {"perturbation": "bf16", "model": "model"}),
    ]
    needing = Job("perturb", {"perturbation": "int8"}, {"model": failing[0]})
    failures = run_on_ray(ray_cluster.address)([*failing, needing], store, progress)
    assert failures.keys() == {failing[0].key, needing.key} == progress.failures.keys()
    assert "model 'nowhere/at/all' does not exist" in failures[failing[0].key].reason
    assert failures[needing.key].reason == "perturb failed"
    assert progress.new[-1] == failing[1].key and store.is_done(failing[1])
