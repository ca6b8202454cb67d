"""Prometheus finds the numbers of a run where the dashboard looks for them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from ecgdist.gauges import PackingGauges, TrainingGauges
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.sample import sample_folder
from tests.cluster.dashboard import all_metrics, dashboard, expressions, metrics_in
from tests.conftest import free_port
from tests.pretraining.proof_run import ROOT, ProofRun, command
from tests.ray_nodes import ray_nodes

STEPS = 20
_OURS = "ray_ecgdist_"
_SEEN_S = 120.0
Labels = frozenset[tuple[str, str]]


@dataclass
class Prometheus:
    """Scrapes what Ray's service discovery names, as `cluster/prometheus.yaml` has Prometheus do it.

    Attributes:
        values: all that was seen of our metrics, by name and labels.
        names: of all metrics that were seen.
    """

    discovery: Path
    values: dict[str, dict[Labels, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    names: set[str] = field(default_factory=set)

    def scrape(self) -> None:
        """All targets once."""
        if not self.discovery.exists():
            return
        for group in json.loads(self.discovery.read_text()):
            for target in group["targets"]:
                try:
                    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                        text = answer.read().decode()
                except OSError:
                    continue  # a target that is not there yet
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        self._note(sample.name, sample.labels, sample.value)

    def _note(self, name: str, labels: dict[str, str], value: float) -> None:
        self.names.add(name)
        if name.startswith(_OURS):
            kept = frozenset((key, labels[key]) for key in ("run", "name", "reason") if key in labels)
            self.values[name].setdefault(kept, []).append(value)

    def of(self, gauge: str, /, **labels: str) -> list[float]:
        """The values of one of our gauges, in order."""
        return self.values[_OURS + gauge].get(frozenset(labels.items()), [])


def test_every_panel_asks_for_metrics_and_names_the_data_source() -> None:
    assert all(metrics_in(each) for panel in expressions().values() for each in panel)
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
    assert [each["name"] for each in dashboard()["templating"]["list"]] == ["datasource", "run"]


def test_an_unknown_word_in_an_expression_is_found() -> None:
    with pytest.raises(ValueError, match="ecgdist_loss"):
        metrics_in('max by (run) (ecgdist_loss{run=~"$run"})')


def test_metrics_of_nodes_are_those_that_ray_defines() -> None:
    """Those of GPUs too, which no test sees."""
    of_nodes = {name for name in all_metrics() if not name.startswith(_OURS)}
    assert {"ray_node_gpus_utilization", "ray_node_gram_used"} <= of_nodes
    assert {name.removeprefix("ray_") for name in of_nodes} <= set(METRICS_GAUGES)


def test_prometheus_reads_the_list_that_ray_writes() -> None:
    (job,) = yaml.safe_load((ROOT / "cluster/prometheus.yaml").read_text())["scrape_configs"]
    (discovery,) = job["file_sd_configs"]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]


def test_gauges_take_any_row_without_a_cluster() -> None:
    gauges = TrainingGauges("run")
    gauges.report({"step": 1, "loss": math.nan, "reconstruction": 0.5, "note": "text", "flag": True})
    gauges.checkpoint_saved()
    PackingGauges("corpus", 3).report(5, {"nan": 1}, 2)


@pytest.mark.slow
@pytest.mark.ray
def test_what_the_dashboard_asks_for_is_there(tmp_path: Path) -> None:
    source, corpus = tmp_path / "source", tmp_path / "corpus"
    shutil.copytree(sample_folder(), source)
    broken = next(source.rglob("*.dat"))
    broken.write_bytes(broken.read_bytes()[:100])
    run = ProofRun(tmp_path / "run", str(corpus), STEPS)
    began_s = time.time()
    with ray_nodes() as nodes:
        nodes.environment["RAY_metrics_report_interval_ms"] = "500"
        nodes.add(cpus=4, head=True, dashboard_port=free_port())
        prometheus = Prometheus(nodes.folder / "prom_metrics_service_discovery.json")
        _pack(source, corpus, nodes.environment, prometheus)
        run.environment |= nodes.environment
        with run.driver() as driver:
            while driver.poll() is None:
                prometheus.scrape()
                time.sleep(0.3)
            assert driver.returncode == 0, run.log.read_text()[-3000:]
    of_gpus = {f"ray_{name}" for name in METRICS_GAUGES if "gpu" in name or "gram" in name}
    assert all_metrics() - of_gpus <= prometheus.names
    _check_training(prometheus, run, began_s)
    ((labels, refused),) = prometheus.values[f"{_OURS}refused_records"].items()
    assert dict(labels)["run"] == str(corpus)
    assert set(refused) == {1.0}
    packed, shards = (prometheus.of(name, run=str(corpus)) for name in ("packed_records", "shards"))
    assert packed == sorted(packed)
    assert 0 < packed[-1] <= 352
    assert set(shards) == {118.0}


def _pack(source: Path, corpus: Path, environment: dict[str, str], prometheus: Prometheus) -> None:
    sizes = ("pack.rate_hz=100", "records_per_shard=3", "max_refused_share=0.1")
    words = [word for each in sizes for word in ("--set", each)]
    driver = subprocess.Popen(
        command("pack", f"ptbxl={source}", "--out", str(corpus), *words),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    while driver.poll() is None:
        prometheus.scrape()
        time.sleep(0.3)
    assert driver.stdout is not None
    said = driver.stdout.read()
    assert driver.returncode == 0, said
    assert "1 records refused" in said


def _check_training(prometheus: Prometheus, run: ProofRun, began_s: float) -> None:
    rows = {row["step"]: row for row in read_metrics(run.run)}
    tag = run.run.uri
    steps = prometheus.of("step", run=tag)
    assert steps == sorted(steps)
    assert set(steps) <= set(rows)
    assert set(prometheus.of("loss", run=tag)) <= {row["loss"] for row in rows.values()}
    parts = prometheus.of("value", run=tag, name="reconstruction")
    assert parts
    assert set(parts) <= {row["reconstruction"] for row in rows.values()}
    assert set(prometheus.of("workers", run=tag)) == {2.0}
    saved = prometheus.of("checkpoint_time_seconds", run=tag)
    assert began_s < saved[0] <= saved[-1] < time.time()
    assert len(set(saved)) > 1, "a checkpoint was saved while it ran"
