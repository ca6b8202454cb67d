"""A run's folder belongs to one run with one configuration, and to one process at a time."""

from __future__ import annotations

import io
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.lease import LEASE, Lease
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.export import CONFIG, RUN
from ecgdist.pretraining.job import PretrainJob, check_folder, claim_run
from ecgdist.pretraining.plan import RunPlan
from ecgdist.storage import Location
from tests.corpus.corpora import made_ecg, row, write_corpus

_SECONDS = 180


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made_corpus(tmp_path_factory.mktemp("corpus") / "corpus", 0)


def made_corpus(folder: Path, seed: int) -> Corpus:
    return write_corpus(folder, [row(made_ecg(seed + n), f"record-{n}") for n in range(32)])


def values(corpus: Corpus, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "corpus": str(corpus.location),
        "out": str(out),
        "steps": 10_000,
        "data": {"lanes": 4, "global_batch": 16, "shuffle_rows": 32},
        "encoder": {"size": "tiny"},
        "engine": {"zero_stage": 1},
        **changes,
    }


def plan(corpus: Corpus, out: Path, **changes: Any) -> RunPlan:
    return RunPlan.of(build(PretrainConfig, values(corpus, out, **changes)))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"data": {"lanes": 8, "global_batch": 16, "shuffle_rows": 32}}, "data.lanes was 4, is now 8"),
        ({"data": {"lanes": 4, "global_batch": 8, "shuffle_rows": 32}}, "global_batch was 16, is now 8"),
        ({"data": {"lanes": 4, "global_batch": 16, "shuffle_rows": 64}}, "shuffle_rows was 32, is now 64"),
        ({"seed": 3}, "seed was 0, is now 3"),
        ({"encoder": {"size": "small"}}, "encoder.size was 'tiny', is now 'small'"),
        ({"encoder": {"size": "tiny", "patch_samples": 25}}, "encoder.patch_samples was"),
        ({"engine": {"zero_stage": 2}}, "engine.zero_stage was 1, is now 2"),
        ({"steps": 20_000}, "total_steps was 10000, is now 20000"),
    ],
)
def test_another_order_model_or_zero_stage_is_refused_with_the_difference(
    corpus: Corpus, tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    run = Location.of(tmp_path / "run")
    claim_run(run, plan(corpus, tmp_path / "run"))
    assert check_folder(run, plan(corpus, tmp_path / "run"))
    with pytest.raises(ConfigError) as raised:
        check_folder(run, plan(corpus, tmp_path / "run", **changes))
    assert difference in str(raised.value)


def test_another_corpus_is_refused_with_the_difference(corpus: Corpus, tmp_path: Path) -> None:
    run = Location.of(tmp_path / "run")
    claim_run(run, plan(corpus, tmp_path / "run"))
    other = made_corpus(tmp_path / "other", 100)
    with pytest.raises(ConfigError) as raised:
        check_folder(run, plan(other, tmp_path / "run"))
    assert f"corpus_id was '{corpus.corpus_id}', is now '{other.corpus_id}'" in str(raised.value)


def test_a_process_that_was_killed_while_it_took_the_lease_leaves_no_stranger(
    corpus: Corpus, tmp_path: Path
) -> None:
    run = Location.of(tmp_path / "run")
    with Lease.take(run):
        (tmp_path / "run" / f".{LEASE}.dead.part").write_bytes(b"half")
        assert not check_folder(run, plan(corpus, tmp_path / "run"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [f".{LEASE}.lock", LEASE]
    assert not check_folder(run, plan(corpus, tmp_path / "run"))
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not a run"):
        check_folder(run, plan(corpus, tmp_path / "run"))


def test_a_run_is_published_when_it_has_come_to_its_end_only(corpus: Corpus, tmp_path: Path) -> None:
    run = Location.of(tmp_path / "run")
    nine, eight = (
        PretrainJob(plan(corpus, tmp_path / "run", steps=steps), Console(file=io.StringIO()))
        for steps in (9, 8)
    )
    claim_run(run, nine.plan)
    with Lease.take(run) as lease:
        with pytest.raises(TrainingError, match=r"before step 9 \(newest checkpoint: none\)"):
            nine.publish(lease)
        (run / "checkpoints/step-00000008-dead/checkpoint.json").write_bytes(b"{}")
        with pytest.raises(TrainingError, match=r"before step 9 .*step-00000008.* same command goes on"):
            nine.publish(lease)
        with pytest.raises(DataError, match="step-00000008-dead"):
            eight.publish(lease)


def test_a_start_that_was_killed_is_made_whole(corpus: Corpus, tmp_path: Path) -> None:
    run = Location.of(tmp_path / "run")
    claim_run(run, plan(corpus, tmp_path / "run"))
    before = (run / CONFIG).read_bytes()
    (run / CONFIG).delete()
    claim_run(run, plan(corpus, tmp_path / "run"))
    assert (run / CONFIG).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"config": {}}'])
def test_a_damaged_note_of_a_run_is_said(corpus: Corpus, tmp_path: Path, content: bytes) -> None:
    run = Location.of(tmp_path / "run")
    claim_run(run, plan(corpus, tmp_path / "run"))
    (run / RUN).write_bytes(content)
    with pytest.raises(DataError, match=r"run\.json is damaged .* begin anew in another --out"):
        claim_run(run, plan(corpus, tmp_path / "run"))


class Command:
    """A running ``ecgdist pretrain``, whose lines are read as they come."""

    def __init__(self, config: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ecgdist.cli", "pretrain", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell's background job, as these tests may be one, has its children ignore Ctrl-C.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line_with(self, text: str) -> str:
        """Wait for a line that holds `text`."""
        deadline = time.monotonic() + _SECONDS
        while True:
            line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"ended without {text!r}: {self.lines}"
            self.lines.append(line)
            if text in line:
                return line

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)


@pytest.fixture
def silent_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that says nothing, in place of a Ray cluster: a run that has its folder waits for it, idle."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.fixture
def start(corpus: Corpus, tmp_path: Path, silent_cluster: None) -> Iterator[Callable[[], Command]]:
    """Starts the same command, each time as a process of its own."""
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(values(corpus, tmp_path / "run")))
    commands: list[Command] = []

    def once() -> Command:
        commands.append(Command(config))
        return commands[-1]

    yield once
    for command in commands:
        command.end()


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_lives_and_goes_on_after_its_death(
    start: Callable[[], Command],
) -> None:
    first = start()
    first.line_with("pretraining tiny on corpus")
    second = start()
    second.line_with("watching for up to")
    assert f"is in use by process {first.process.pid}" in second.lines[-1].replace("\n", "")
    second.line_with("which lives; wait for it, end it, or choose another --out")
    assert second.process.wait(_SECONDS) != 0
    assert first.process.poll() is None
    first.process.kill()
    first.process.wait()
    third = start()
    third.line_with("pretraining tiny on corpus")
    assert not [line for line in third.lines if "watching" in line], "it sees that the first is dead"
    third.process.send_signal(signal.SIGINT)
    assert third.process.wait(_SECONDS) != 0
    fourth = start()
    fourth.line_with("pretraining tiny on corpus")
    assert not [line for line in fourth.lines if "watching" in line], "the lease was given back"
