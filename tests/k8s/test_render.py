"""`ecgdist k8s render`: the manifests of an overlay for one configuration, and the jobs that they start."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import load
from ecgdist.downstream.sweep.config import SweepConfig
from ecgdist.errors import ConfigError
from ecgdist.k8s.check import check
from ecgdist.k8s.manifests import Manifests, Object, at, quantity
from ecgdist.k8s.render import Job, Site, render, to_yaml
from ecgdist.k8s.sizes import Sizes
from ecgdist.packing.config import PackConfig
from ecgdist.pretraining.config import PretrainConfig
from tests.k8s.overlays import CONFIGS, FOLDER, IMAGE, NAMES, REDIS_IMAGE, ROLE, ROOT, built, one
from tests.k8s.test_schemas import check_schema

OWN_CONFIG = {
    "cpu-dev": "pretrain-cpu-dev.yaml",
    "gpu": "pretrain-gpu.yaml",
    "gpu-spot": "pretrain-gpu-spot.yaml",
    "airgapped": "pretrain-gpu.yaml",
}
"""The pretraining that an overlay is made for."""


def job(name: str, *overrides: str) -> Job:
    return Job.load(str(CONFIGS / name), overrides)


def groups(manifests: Manifests) -> dict[str, Object]:
    (cluster,) = manifests.clusters
    return {group["groupName"]: group for group in cluster.groups}


def numbers(group: Object) -> dict[str, Any]:
    """All that rendering fills in."""
    pod = group["template"]["spec"]
    (shm,) = (v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if at(v, "emptyDir.medium") == "Memory")
    replicas = [group[key] for key in ("minReplicas", "replicas", "maxReplicas")]
    return {
        "replicas": replicas,
        "start": group["rayStartParams"],
        "resources": pod["containers"][0]["resources"],
        "shm": shm,
    }


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("p*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    load(PackConfig if path.name.startswith("pack") else PretrainConfig, path)
    listed = yaml.safe_load((CONFIGS / "kustomization.yaml").read_text())["configMapGenerator"][0]["files"]
    assert path.name in listed


@pytest.mark.parametrize("overlay", NAMES)
def test_an_overlays_own_numbers_are_those_of_its_configuration(overlay: str) -> None:
    name = OWN_CONFIG[overlay]
    manifests = render(job(name), FOLDER, overlay, Site(IMAGE, REDIS_IMAGE, ROLE))
    theirs = {c.owner["metadata"]["name"]: c for c in built(overlay).clusters}["pretrain"]
    for group in theirs.groups:
        assert numbers(groups(manifests)[group["groupName"]]) == numbers(group)
    entrypoint = one(built(overlay), "RayJob", "pretrain")["spec"]["entrypoint"]
    assert entrypoint == f"python jobs/pretrain.py /etc/ecgdist/{name}"
    budgets = {each["metadata"]["name"]: each["spec"] for each in manifests.of_kind("PodDisruptionBudget")}
    theirs_too = {
        each["metadata"]["name"]: each["spec"] for each in built(overlay).of_kind("PodDisruptionBudget")
    }
    assert budgets == {name: spec for name, spec in theirs_too.items() if name in budgets}


def test_a_rendered_job_is_whole_valid_and_awake() -> None:
    manifests = render(job("pretrain-gpu-spot.yaml", "seed=3"), FOLDER, "gpu-spot", Site(IMAGE))
    assert not check(manifests)
    for each in manifests.objects:
        check_schema(each)
    kinds = [each["kind"] for each in manifests.objects]
    assert (kinds.count("RayJob"), kinds.count("RayCluster"), kinds.count("ConfigMap")) == (1, 0, 1)
    assert (kinds[0], kinds[-1]) == ("Namespace", "RayJob")
    spec = one(manifests, "RayJob", "pretrain")["spec"]
    assert spec["suspend"] is False
    assert spec["entrypoint"] == "python jobs/pretrain.py /etc/ecgdist/pretrain.yaml"
    given = yaml.safe_load(one(manifests, "ConfigMap", "ecgdist-pretrain")["data"]["pretrain.yaml"])
    assert given == yaml.safe_load((CONFIGS / "pretrain-gpu-spot.yaml").read_text()) | {"seed": 3}
    assert list(yaml.safe_load_all(to_yaml(manifests))) == list(manifests.objects)
    gpu = groups(manifests)["gpu"]
    assert (gpu["minReplicas"], gpu["maxReplicas"], gpu["rayStartParams"]["num-gpus"]) == (1, 4, "8")


def test_a_sweep_has_room_for_its_trials_at_a_time() -> None:
    wanted = job("sweep.yaml")
    with pytest.raises(ConfigError, match="give --worker-gib"):
        render(wanted, FOLDER, "gpu", Site(IMAGE))
    manifests = render(wanted, FOLDER, "gpu-spot", Site(IMAGE), workers_per_pod=4, worker_gib=16)
    assert not check(manifests)
    spec = one(manifests, "RayJob", "sweep")["spec"]
    assert spec["entrypoint"] == "python jobs/sweep.py /etc/ecgdist/sweep.yaml"
    assert yaml.safe_load(one(manifests, "ConfigMap", "ecgdist-sweep")["data"]["sweep.yaml"])["trials"] == 32
    gpu = groups(manifests)["gpu"]
    assert (gpu["minReplicas"], gpu["maxReplicas"]) == (2, 2), "four trials of two GPUs on pods of four"
    assert gpu["rayStartParams"]["num-gpus"] == "4"
    # Two CPUs for each of four workers, a half for each of two read tasks, and what leads the trials.
    assert gpu["rayStartParams"]["num-cpus"] == "13"


def test_one_trial_at_a_time_is_led_by_a_process_too() -> None:
    config = job("sweep.yaml", "concurrent=1").config
    assert isinstance(config, SweepConfig)
    led, alone = (Sizes.of(config.first(), 8, on_gpu=True, worker_gib=16, runs=runs) for runs in (1, None))
    assert (led.ray_cpus, alone.ray_cpus) == (7, 6)
    assert led.workers == alone.workers == 2


def test_workers_fill_pods_of_any_width() -> None:
    wanted = job("pretrain-gpu.yaml", "workers.count=null", "workers.min=5", "workers.max=12")
    manifests = render(wanted, FOLDER, "gpu", Site(IMAGE), workers_per_pod=4, worker_gib=10)
    gpu = groups(manifests)["gpu"]
    assert (gpu["minReplicas"], gpu["replicas"], gpu["maxReplicas"]) == (2, 2, 3)
    has = gpu["template"]["spec"]["containers"][0]["resources"]
    assert has["requests"] == has["limits"]
    shm_gib = 2 + 4  # the object store of four workers in whole GiB, and a GiB for each GPU
    assert has["limits"]["memory"] == f"{4 * 10 + shm_gib}Gi"
    assert has["limits"]["nvidia.com/gpu"] == gpu["rayStartParams"]["num-gpus"] == "4"
    assert one(manifests, "PodDisruptionBudget", "pretrain-gpu")["spec"]["minAvailable"] == 2


@pytest.mark.parametrize("name", sorted(set(OWN_CONFIG.values())))
@pytest.mark.parametrize("per_pod", [1, 3, 8])
def test_sizes_hold_the_workers_and_what_they_need(name: str, per_pod: int) -> None:
    config = load(PretrainConfig, CONFIGS / name)
    on_gpu = config.workers.accelerator == "gpu"
    sizes = Sizes.of(config, per_pod, on_gpu)
    workers, stream = config.workers, config.data.stream
    assert sizes.least * sizes.workers >= workers.least > (sizes.least - 1) * sizes.workers
    assert sizes.most * sizes.workers >= workers.most > (sizes.most - 1) * sizes.workers
    assert sizes.ray_cpus >= sizes.workers * (workers.cpus_each + 2 * stream.cpus_per_task)
    assert sizes.cpus > sizes.ray_cpus
    assert sizes.gpus == (sizes.workers if on_gpu else 0)
    assert sizes.shm_gib > sizes.store_gib
    assert sizes.store_gib * 2**30 >= 2 * sizes.workers * stream.object_store_bytes
    # What SOAK.md measured of one worker and one read task is the least that anybody needs.
    assert sizes.memory_gib - sizes.shm_gib >= sizes.workers * math.ceil(1.066 + 1.617)


def test_a_larger_model_gets_more_memory() -> None:
    gib = [
        Sizes.of(
            load(PretrainConfig, CONFIGS / "pretrain-gpu.yaml", [f"encoder.size={size}"]), 8, True
        ).memory_gib
        for size in ("small", "base", "large")
    ]
    assert gib == sorted(gib)
    assert len(set(gib)) == 3


def test_training_on_cpus_takes_no_gpu_where_there_are_some() -> None:
    manifests = render(job("pretrain-cpu-dev.yaml"), FOLDER, "gpu", Site(IMAGE))
    found = groups(manifests)
    assert (found["gpu"]["minReplicas"], found["gpu"]["maxReplicas"]) == (0, 0)
    assert (found["cpu"]["minReplicas"], found["cpu"]["rayStartParams"]["num-cpus"]) == (1, "4")


def test_packing_takes_no_gpu_group() -> None:
    manifests = render(job("pack.yaml"), FOLDER, "gpu", Site(IMAGE))
    assert list(groups(manifests)) == ["cpu"]
    assert (
        one(manifests, "RayJob", "pack")["spec"]["entrypoint"] == "python jobs/pack.py /etc/ecgdist/pack.yaml"
    )


def test_a_standing_cluster_has_the_size_of_the_job() -> None:
    manifests = render(job("pretrain-gpu.yaml"), FOLDER, "gpu", Site(IMAGE), standing=True)
    assert not manifests.jobs
    assert one(manifests, "RayCluster", "ecgdist")["spec"]["suspend"] is False
    assert groups(manifests)["gpu"]["minReplicas"] == 4


def test_the_site_is_put_in_or_left_out() -> None:
    with_all = render(job("pack.yaml"), FOLDER, "gpu", Site(IMAGE, REDIS_IMAGE, ROLE))
    assert REDIS_IMAGE in to_yaml(with_all)
    assert to_yaml(with_all).count(ROLE) == 2
    without = render(job("pack.yaml"), FOLDER, "gpu", Site(IMAGE))
    assert not without.of_kind("StatefulSet", "Service")
    assert "role-arn" not in to_yaml(without)


@pytest.mark.parametrize(
    ("config", "overlay", "site", "said"),
    [
        ("pack.yaml", "gpu", Site("ecgdist"), r"image ecgdist is not of the form NAME@sha256:DIGEST"),
        ("pack.yaml", "gpu", Site("ecgdist:latest"), r"image_is_not_latest"),
        ("pack.yaml", "gpu", Site(IMAGE, bucket_role="ROLE"), r"role-arn is ROLE; set it"),
        ("pack.yaml", "tpu", Site(IMAGE), r"--overlay tpu is none of airgapped, cpu-dev, gpu, gpu-spot"),
        ("pretrain-gpu.yaml", "cpu-dev", Site(IMAGE), r"no GPU group; choose another overlay"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(config: str, overlay: str, site: Site, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        render(job(config), FOLDER, overlay, site)


def test_an_elastic_run_that_ray_could_not_feed_is_refused() -> None:
    wanted = job("pretrain-cpu-dev.yaml", "workers.count=null", "workers.min=1", "workers.max=4")
    with pytest.raises(ConfigError, match=r"their read tasks .* would find no room"):
        render(wanted, FOLDER, "cpu-dev", Site(IMAGE), workers_per_pod=1)


def test_a_folder_without_overlays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder k8s of the repository.*--manifests"):
        render(job("pack.yaml"), tmp_path, "gpu", Site(IMAGE))


def test_the_command_prints_manifests_that_the_other_one_finds_valid(tmp_path: Path) -> None:
    config = str(CONFIGS / "pretrain-cpu-dev.yaml")
    command = ["k8s", "render", config, "--overlay", "cpu-dev", "--image", IMAGE, "--set", "steps=10"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    file = tmp_path / "manifests.yaml"
    file.write_text(result.output)
    checked = CliRunner().invoke(app, ["k8s", "check", str(file)])
    assert (checked.exit_code, checked.output) == (0, "no rule is broken\n")
    file.write_text(result.output.replace(IMAGE, "ecgdist"))
    checked = CliRunner().invoke(app, ["k8s", "check", str(file)])
    assert checked.exit_code == 1
    assert "image_has_digest" in checked.output
    assert CliRunner().invoke(app, ["k8s", "check", str(tmp_path / "nowhere")]).exit_code == 1


@pytest.mark.parametrize(("name", "config"), [("pack", "pack.yaml"), ("pretrain", "pretrain-gpu.yaml")])
def test_a_job_script_is_the_command(
    name: str, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(ROOT / "jobs" / f"{name}.py")
    monkeypatch.setattr("sys.argv", [script, str(CONFIGS / config), "--set", "out=elsewhere", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["out"] == "elsewhere"


def test_memory_is_a_sum_that_can_be_followed() -> None:
    """Of the README: pods hold their workers, the object store and what GPUs talk through."""
    config = load(PretrainConfig, CONFIGS / "pretrain-gpu.yaml")
    sizes = Sizes.of(config, 8, on_gpu=True, worker_gib=12.5)
    assert sizes.memory_gib == 8 * 12.5 + sizes.shm_gib
    assert sizes.shm_gib == sizes.store_gib + 8
    assert quantity(f"{sizes.store_gib}Gi") >= 8 * 2 * config.data.stream.object_store_bytes
