"""The job as a user starts it: Ray Train, Ray Data, DeepSpeed and storage together, on the shipped ECGs."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from rich.console import Console
from safetensors.numpy import load_file

import ecgdist
from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.lease import Lease
from ecgdist.preprocessing import PackStep
from ecgdist.pretraining.checkpoint import STUDENT, TEACHER, CheckpointStore
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.console import Mailbox
from ecgdist.pretraining.export import export_model
from ecgdist.pretraining.job import pretrain, refuse_shared
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.raytrain import _trainer, check_resources
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.corpus.corpora import row, write_corpus
from tests.pretraining.recorded import Watch
from tests.pretraining.runs import largest_difference

STEPS, SAVED_AT = 12, 6

# Speed, which differs from run to run.
TIMES = {"ecg_per_s", "waiting_share", "seconds_per_step"}


def config(corpus: Corpus, out: Path, **changes: Any) -> PretrainConfig:
    values = {
        "corpus": corpus.location.uri,
        "out": str(out),
        "steps": STEPS,
        "log_every_steps": 1,
        # Nine steps an epoch: the second half of the run begins a new one.
        "data": {"lanes": 4, "global_batch": 32, "shuffle_rows": 64, "exclude_splits": ["fold8"]},
        "encoder": {"size": "tiny"},
        "engine": {"zero_stage": 2},
        "workers": {"count": 2},
        "checkpoint": {"every_steps": SAVED_AT},
    }
    return build(PretrainConfig, values | changes)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    printed: str

    @property
    def checkpoints(self) -> list[str]:
        return CheckpointStore(Location.of(self.folder)).names()

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(Location.of(self.folder))
        ]


def run(settings: PretrainConfig) -> Run:
    printed = io.StringIO()
    pretrain(settings, Console(file=printed, width=200))
    return Run(Path(settings.out), printed.getvalue())


@pytest.fixture(scope="module")
def finished(sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An unbroken run."""
    return run(config(sample_corpus, tmp_path_factory.mktemp("unbroken") / "run"))


@pytest.fixture(scope="module")
def resumed(finished: Run, sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, as if it had been stopped while it published, and its last checkpoint been damaged."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    shutil.copytree(finished.folder, folder)
    (folder / "model" / "config.json").unlink()
    newest = folder / "checkpoints" / finished.checkpoints[-1] / STUDENT
    newest.write_bytes(newest.read_bytes()[:-1])
    return run(config(sample_corpus, folder))


@pytest.mark.ray
def test_a_run_leaves_checkpoints_metrics_and_a_model(finished: Run, sample_corpus: Corpus) -> None:
    assert [name[:13] for name in finished.checkpoints] == ["step-00000006", "step-00000012"]
    assert [row["step"] for row in finished.rows] == list(range(1, STEPS + 1))
    last = finished.rows[-1]
    assert last["samples"] == STEPS * 32
    assert last["loss"] == pytest.approx(last["reconstruction"] + last["contrastive"])
    assert all(np.isfinite(value) for row in finished.rows for value in row.values())
    assert finished.rows[-1]["loss"] < finished.rows[0]["loss"]
    assert f"step {STEPS}/{STEPS}  loss" in finished.printed
    if not ray.cluster_resources().get("GPU"):
        assert "the cluster has no GPU: the workers train on its CPUs" in finished.printed
    assert (finished.folder / "tensorboard").is_dir()
    assert not (finished.folder / "ray").exists(), "Ray Train's own notes are not what a run is resumed from"
    assert json.loads((finished.folder / "run.json").read_text())["corpus_id"] == sample_corpus.corpus_id


@pytest.mark.ray
def test_the_model_is_the_encoder_of_the_last_checkpoint(finished: Run, sample_corpus: Corpus) -> None:
    model = ecgdist.load(finished.folder / "model")
    student = load_file(finished.folder / "checkpoints" / finished.checkpoints[-1] / STUDENT)
    for name, weight in model.encoder.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), student[f"encoder.{name}"])
    origin = model.config.provenance
    assert (origin.corpus_id, origin.steps, origin.global_batch) == (sample_corpus.corpus_id, STEPS, 32)
    held_out = np.array(sample_corpus.index["split"].to_pylist()) == "fold8"
    assert origin.rows == (~held_out).sum() < len(held_out)
    patients = np.array(sample_corpus.index["patient_key"].to_pylist())
    assert model.patients == set(patients[~held_out])
    assert {bytes(p) for p in model.waveforms} == {bytes(p) for p in sample_corpus.fingerprints[~held_out]}
    assert not model.patients & set(patients[held_out])


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(finished: Run, resumed: Run) -> None:
    """Losses are equal to the last bit: the same records, crops and masks, also across an epoch's end."""
    assert "WARNING" in resumed.printed
    assert "differs from its sha256 in checkpoint.json" in resumed.printed
    assert f"resumed from checkpoint {finished.checkpoints[0]} at step {SAVED_AT}" in resumed.printed
    assert f"step {SAVED_AT}/" not in resumed.printed, "no step is trained twice"
    assert resumed.rows == finished.rows
    assert [name[:13] for name in resumed.checkpoints] == ["step-00000006", "step-00000012"]
    for name in (STUDENT, TEACHER):
        ends = [load_file(r.folder / "checkpoints" / r.checkpoints[-1] / name) for r in (resumed, finished)]
        assert largest_difference(*ends) == 0
    assert (
        ecgdist.load(resumed.folder / "model").model_hash
        == ecgdist.load(finished.folder / "model").model_hash
    )


@pytest.mark.ray
def test_a_finished_run_is_not_trained_again(finished: Run, sample_corpus: Corpus) -> None:
    before = finished.checkpoints
    again = run(config(sample_corpus, finished.folder))
    assert "is finished" in again.printed
    assert finished.checkpoints == before


@pytest.mark.ray
def test_a_run_is_not_continued_with_other_settings(finished: Run, sample_corpus: Corpus) -> None:
    with pytest.raises(ConfigError) as raised:
        run(config(sample_corpus, finished.folder, steps=24, seed=1))
    assert "seed was 0, is now 1" in str(raised.value)
    assert "steps was 12, is now 24" in str(raised.value)


@pytest.mark.ray
@pytest.mark.parametrize(("model_format", "shown"), [(None, "below 3"), (2, "2")])
def test_a_run_that_began_with_another_filter_is_neither_continued_nor_published(
    finished: Run, sample_corpus: Corpus, model_format: int | None, shown: str
) -> None:
    file = finished.folder / "run.json"
    before = file.read_text()
    content = json.loads(before) | {"model_format": model_format}
    if model_format is None:
        del content["model_format"]
    file.write_text(json.dumps(content))
    try:
        for use in (
            lambda: run(config(sample_corpus, finished.folder)),
            lambda: export_model(Location.of(finished.folder), Location.of(finished.folder / "other")),
        ):
            with pytest.raises(
                DataError, match=f"began with model format {shown}; this version goes on with 3"
            ):
                use()
    finally:
        file.write_text(before)
    assert not (finished.folder / "other").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_training_that_diverges_stops_with_one_sentence(sample_corpus: Corpus, tmp_path: Path) -> None:
    """The error reaches the driver as itself, and lost workers are not started again for it."""
    wild = {"learning_rate": 1e30, "warmup_share": 0.0}
    settings = config(sample_corpus, tmp_path / "run", optimizer=wild, workers={"count": 1})
    with pytest.raises(TrainingError, match=r"step 1: the loss is not finite .*rank 0: ptbxl/") as raised:
        run(settings)
    assert "\n" not in str(raised.value)
    listed = json.loads((tmp_path / "run/nonfinite/step-00000001-rank-0.json").read_text())
    assert listed["what"] == "loss"
    assert len(listed["batch"]) == 32
    assert set(listed["suspects"]) <= set(listed["batch"])
    assert not (tmp_path / "run" / "model").exists()
    assert CheckpointStore(Location.of(tmp_path / "run")).names() == []


@pytest.mark.ray
def test_a_folder_with_something_else_in_it_is_refused(sample_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not a run"):
        run(config(sample_corpus, tmp_path))
    with pytest.raises(ConfigError, match="exists and is not a run"):
        run(config(sample_corpus, tmp_path / "thesis.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.ray
def test_more_workers_than_lanes_are_refused(sample_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workers\.count = 5 is more than data\.lanes = 4"):
        config(sample_corpus, tmp_path, workers={"count": 5})


@pytest.mark.ray
def test_a_gpu_that_is_not_there_is_refused(sample_corpus: Corpus, tmp_path: Path) -> None:
    settings = config(sample_corpus, tmp_path / "run", workers={"count": 1, "accelerator": "gpu"})
    with pytest.raises(ConfigError, match="the cluster has no GPU"):
        run(settings)


@pytest.mark.parametrize(
    ("accelerator", "gpus", "expected"),
    [("auto", 0, False), ("auto", 2, True), ("gpu", 2, True), ("cpu", 2, False)],
)
def test_auto_takes_the_gpus_that_there_are(
    sample_corpus: Corpus, tmp_path: Path, accelerator: str, gpus: int, expected: bool
) -> None:
    settings = config(sample_corpus, tmp_path, workers={"count": 2, "accelerator": accelerator})
    assert check_resources(settings, [{"CPU": 8.0}, {"CPU": 8.0, "GPU": gpus}]) is expected


@pytest.mark.ray
def test_a_run_whose_gpus_have_gone_waits_for_others(sample_corpus: Corpus, tmp_path: Path) -> None:
    """As its workers start again, when this cluster has none. Going on to its CPUs would look like a run that hangs."""
    settings, mailbox = config(sample_corpus, tmp_path / "run"), Mailbox()
    with Lease.take(Location.of(tmp_path / "run"), print) as lease:
        trainer = _trainer(lambda _: None, settings, True, mailbox, lease, 1, tmp_path)
    mailbox.close()
    assert trainer.scaling_config.use_gpu
    assert trainer.scaling_config.resources_per_worker == {"CPU": 1.0, "GPU": 1.0}


@pytest.mark.ray
def test_a_cluster_without_a_cpu_for_reading_is_refused(sample_corpus: Corpus, tmp_path: Path) -> None:
    """Its workers would start, and wait for data for ever."""
    settings = config(sample_corpus, tmp_path / "run", workers={"count": 2, "cpus_each": 2})
    with pytest.raises(ConfigError, match=r"the cluster has 4 CPUs; .* need 5"):
        run(settings)


@pytest.mark.ray
def test_a_run_that_shares_anything_with_an_evaluation_corpus_does_not_start(
    sample_corpus: Corpus, tmp_path: Path
) -> None:
    """Of the same ECGs only those of the excluded fold may be evaluated on, and a copy at another rate is found."""
    facts = sample_corpus.columns("record_id", "split").to_pandas()
    source = open_source("ptbxl", str(sample_folder()))
    recordings = {listing.record_id: source.read_record(listing) for listing in source.list_records()}

    def copies(split: str, folder: str) -> str:
        ids = facts["record_id"][facts["split"] == split][:3]
        pack = PackStep(rate_hz=250.0)
        rows = [row(pack.segments(recordings[i])[0].signal_uv, f"copy of {i}") for i in ids]
        return str(write_corpus(tmp_path / folder, rows, rate_hz=250.0).location)

    data = {"lanes": 4, "global_batch": 32, "shuffle_rows": 64, "exclude_splits": ["fold8"]}
    clean, shared = copies("fold8", "clean"), copies("fold2", "shared")
    refuse_shared(RunPlan.of(config(sample_corpus, tmp_path, data=data | {"evaluation_corpora": [clean]})))
    settings = config(sample_corpus, tmp_path / "run", data=data | {"evaluation_corpora": [clean, shared]})
    with pytest.raises(
        DataError, match=r"share 0 patients and 3 waveforms; waveform .*= made/copy of"
    ) as caught:
        run(settings)
    assert f"`ecgdist check-leak {sample_corpus.location} {shared}`" in str(caught.value)


@pytest.mark.ray
def test_a_window_longer_than_a_segment_is_refused(sample_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is longer than a segment"):
        run(config(sample_corpus, tmp_path / "run", device={"window_s": 12}))


@pytest.mark.slow
@pytest.mark.ray
def test_a_damaged_shard_stops_a_run_before_a_step_is_made_of_it(
    sample_corpus: Corpus, tmp_path: Path
) -> None:
    """Met by a read task, on one rank, in the middle of training; no worker trains again only to meet it again."""
    shutil.copytree(sample_corpus.location.uri, tmp_path / "corpus")
    shard = tmp_path / "corpus/shards/00007.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    corpus = Corpus(tmp_path / "corpus")
    data = {"lanes": 4, "global_batch": 32, "shuffle_rows": 64, "exclude_splits": ["fold8"]}
    data["record_rows"] = str(tmp_path / "rows")
    settings = config(corpus, tmp_path / "run", workers={"count": 2, "max_failures": 3}, data=data)
    with pytest.raises(
        DataError, match=r"shards/00007\.parquet is damaged \(row group 0: .*; pack the corpus again"
    ) as caught:
        run(settings)
    assert "\n" not in str(caught.value)
    watch = Watch(tmp_path / "rows")
    used = {row for line in watch.look() for row in line.row_ids}
    in_it = corpus.groups_of_rows == 7
    facts = corpus.columns("source", "record_id", "segment").filter(pa.array(in_it)).to_pylist()
    assert not used & {f"{fact['source']}/{fact['record_id']}#{fact['segment']}" for fact in facts}
    assert len(list((tmp_path / "rows").iterdir())) == 2, "each rank has trained once"
