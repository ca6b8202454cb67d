"""What goes along with a job, and what never does; no cluster is needed for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import types
import typing
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import metadata
from pathlib import Path
from typing import Any, Union

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import load
from ecgdist.errors import ConfigError
from ecgdist.jobs import entrypoint
from ecgdist.jobs.cluster import address_of
from ecgdist.jobs.code import code_digest, code_files, copy_code, package_folder
from ecgdist.jobs.kinds import KINDS
from ecgdist.jobs.places import settle
from ecgdist.jobs.secrets import job_environment
from ecgdist.jobs.submit import JobRequest, Options, entrypoint_of
from ecgdist.jobs.upload import prepared
from ecgdist.pretraining.config import PretrainConfig

RUN = {"corpus": "s3://ecg/corpus", "out": "s3://ecg/runs/one", "steps": 5}


def write(folder: Path, values: dict[str, Any], name: str = "run.yaml") -> str:
    (folder / name).write_text(yaml.safe_dump(values))
    return str(folder / name)


def request(folder: Path, values: dict[str, Any], *overrides: str, command: str = "pretrain") -> JobRequest:
    return JobRequest.load(command, write(folder, values), overrides)


def test_only_the_configuration_and_a_script_go_along(tmp_path: Path) -> None:
    (tmp_path / "private.csv").write_text("not for others")
    asked = request(tmp_path, RUN, "steps=7")
    with asked.prepared(Options({})) as upload:
        folder = upload.working_dir
        assert sorted(path.name for path in folder.rglob("*")) == ["job.json", "job.py", "job.yaml"]
        assert upload.modules == ()
        assert upload.sizes == {path.name: path.stat().st_size for path in folder.iterdir()}
        assert load(PretrainConfig, folder / "job.yaml") == asked.config
        assert load(PretrainConfig, folder / "job.yaml").steps == 7
        assert (folder / "job.py").read_text() == Path(entrypoint.__file__).read_text()
        assert str(upload) == f"{upload.total_bytes / 1e3:,.1f} kB in 3 files: job.json, job.py, job.yaml"
    assert not folder.exists()


def test_a_task_in_a_file_goes_along_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "own.csv").write_text("record_id,AF,split\n1,0,train\n")
    values = {"model": "s3://ecg/model", "corpus": "s3://ecg/corpus", "task": "labels/own.csv"}
    asked = request(tmp_path, values, command="evaluate")
    with asked.prepared(Options({})) as upload:
        assert (upload.working_dir / "own.csv").read_text() == "record_id,AF,split\n1,0,train\n"
        assert yaml.safe_load((upload.working_dir / "job.yaml").read_text())["task"] == "own.csv"
    with pytest.raises(ConfigError, match=r"task = labels/none\.csv: there is no such file here"):
        request(tmp_path, values | {"task": "labels/none.csv"}, command="evaluate")
    (tmp_path / "job.yaml").write_text("name: mine")
    with pytest.raises(ConfigError, match=r"a file that goes along cannot be called job\.yaml; rename it"):
        request(tmp_path, values | {"task": "job.yaml"}, command="evaluate").prepared(Options({})).__enter__()


def test_what_is_too_large_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    (tmp_path / "big.csv").write_bytes(b"0" * 3_000_000)
    with prepared({}, {"big.csv": tmp_path / "big.csv"}, with_code=False) as upload:
        upload.check_size(3.1)
        with pytest.raises(
            ConfigError, match=r"the files are 3\.0 MB, more than 2 MB; the largest: big\.csv \(3\.0 MB\)"
        ):
            upload.check_size(2)


def test_the_package_is_sent_whole_but_for_its_ecgs_and_says_its_version(tmp_path: Path) -> None:
    with prepared({}, {}, with_code=True) as upload:
        code, about = upload.modules
        assert code_digest(code) == code_digest()
        assert {path.relative_to(code) for path in code.rglob("*") if path.is_file()} == {*code_files()}
        assert len(list(code.rglob("*.py"))) == len(list(package_folder().rglob("*.py")))
        assert (code / "sample" / "__init__.py").exists()
        assert not (code / "sample" / "ptb-xl").exists()
        assert upload.total_bytes < 5e6
        done = subprocess.run(
            [sys.executable, "-c", "from importlib import metadata; print(metadata.version('ecgdist'))"],
            env=os.environ | {"PYTHONPATH": f"{code.parent}"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == metadata.version("ecgdist")
        assert about.name.endswith(".dist-info")


def test_a_changed_file_gives_another_digest(tmp_path: Path) -> None:
    code, _ = copy_code(tmp_path)
    before = code_digest(code)
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "x.pyc").write_bytes(b"1")
    assert code_digest(code) == before
    (code / "s3.py").write_text("changed")
    assert code_digest(code) != before


@pytest.mark.parametrize(
    ("change", "expected", "status"),
    [
        ({}, "steps: 5", 0),
        (
            {"ecgdist": "0.0.9"},
            "error: the cluster has ecgdist .*, the job was submitted by 0.0.9: give the",
            1,
        ),
        ({"digest": "0"}, "warning: the code of ecgdist .* is not the one of where the job was submitted", 0),
        ({"digest": "0", "with_code": True}, "error: this is a defect", 1),
    ],
    ids=["as it is", "another version", "other code", "other code than sent"],
)
def test_the_script_runs_the_command_if_the_cluster_has_the_same_version(
    tmp_path: Path,
    change: dict[str, Any],
    expected: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with request(tmp_path, RUN).prepared(Options({})) as upload:
        monkeypatch.chdir(upload.working_dir)
        about = json.loads(Path("job.json").read_text())
        Path("job.json").write_text(json.dumps(about | change))
        with pytest.raises(SystemExit) as ended:
            entrypoint.main(Path(), ["pretrain", "job.yaml", "--dry-run"])
        monkeypatch.chdir(tmp_path)
    printed = capsys.readouterr()
    said = f"{printed.out}{printed.err}{ended.value}"
    assert re.search(expected, said), said
    assert (ended.value.code == 0) == (status == 0)
    assert ("steps: 5" in said) == (status == 0), "the command is not run otherwise"


def test_an_interpreter_without_the_package_is_said(tmp_path: Path) -> None:
    with request(tmp_path, RUN).prepared(Options({})) as upload:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "job.py", "pretrain", "job.yaml"],
            cwd=upload.working_dir, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {sys.executable} on the cluster has no ecgdist: name another")


def test_local_paths_are_absolute_and_refused_where_the_cluster_cannot_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = request(tmp_path, RUN | {"corpus": "corpus", "data": {"evaluation_corpora": ["a", "s3://b/c"]}})
    assert asked.settled.values["corpus"] == str(tmp_path / "corpus")
    assert asked.settled.values["data"]["evaluation_corpora"] == [str(tmp_path / "a"), "s3://b/c"]
    with pytest.raises(ConfigError) as error:
        asked.check_places("http://head:8265")
    assert (
        f"its nodes would look for these on their own disks: corpus = {tmp_path}/corpus, "
        f"data.evaluation_corpora = {tmp_path}/a; put them into s3://, or add --shared-files"
    ) in str(error.value)
    request(tmp_path, RUN).check_places("http://head:8265")


def test_sources_keep_their_kind() -> None:
    values = {"sources": ["npy:clinic=data", "ptbxl=s3://b/p"], "out": "s3://b/o"}
    settled = settle(values, KINDS["pack"])
    assert settled.values["sources"] == [f"npy:clinic={Path('data').absolute()}", "ptbxl=s3://b/p"]
    assert settled.local == (("sources", str(Path("data").absolute())),)
    assert values["sources"][0] == "npy:clinic=data", "what was given is not changed"


PLAIN = {
    "pack": {"exclude", "pack.ignore_leads"},
    "pretrain": {"data.exclude_splits"},
    "finetune": set(),
    "evaluate": set(),
    "sweep": set(),
    "benchmark": set(),
    "embed": set(),
    "compare": set(),
}
"""Settings that are texts, and name no file."""
CHECKED_ELSEWHERE = ("augment", "device", "encoder", "folds", "seeded", "halving", "objective", "space")
"""Sections whose texts are names of choices, splits or folders of a sweep itself."""


def texts(cls: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all settings that can be any text, or several."""
    found: set[str] = set()
    for name, field in cls.model_fields.items():
        if name in CHECKED_ELSEWHERE:
            continue
        for kind in _kinds(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= texts(kind, f"{prefix}{name}.")
            elif kind is str:
                found.add(prefix + name)
    return found


def _kinds(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (Union, types.UnionType, tuple):
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    return [annotation]


@pytest.mark.parametrize("command", KINDS)
def test_every_setting_that_names_a_file_is_known(command: str) -> None:
    kind = KINDS[command]
    own = {
        name
        for name in (*kind.places, *kind.tasks)
        if not name.startswith(("finetune.", "pretrain.", "space."))
    }
    assert texts(kind.config()) - PLAIN[command] == own


SECRETS = [
    "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "DB_PASSWORD",
    "ECGDIST_PATIENT_KEY", "RAY_AUTH_TOKEN", "GOOGLE_CREDENTIALS", "my_secret", "SSH_PASSPHRASE", "HFTOKEN",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_a_variable_with_the_name_of_a_secret_is_refused(name: str) -> None:
    for given, here in ((f"{name}=hunter2", {}), (name, {name: "hunter2"})):
        with pytest.raises(
            ConfigError, match=f"--env {name} looks like a secret, and does not go along"
        ) as error:
            job_environment([given], here)
        assert "hunter2" not in str(error.value)
        assert "Set it on the nodes instead" in str(error.value)


VALUES = [
    "https://me:hunter2@host/x", "s3://AKIAIOSFODNN7EXAMPLE:hunter2@bucket", "AKIAIOSFODNN7EXAMPLE",
    "https://b.s3.amazonaws.com/x?X-Amz-Signature=hunter2", "-----BEGIN RSA PRIVATE KEY-----hunter2",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_credentials_in_a_value_are_refused_and_not_shown(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--env PLACE holds what looks like credentials") as error:
        job_environment([f"PLACE={value}"], {})
    assert value not in str(error.value)
    for values, key in (
        (RUN | {"corpus": value}, "corpus"),
        (RUN | {"data": {"evaluation_corpora": ["s3://a/b", value]}}, "data.evaluation_corpora"),
        (RUN | {"no_such_key": value}, "no_such_key"),
        (RUN | {value: 1}, "a key below the top level"),
    ):
        with pytest.raises(ConfigError, match=f"{key} holds what looks like credentials") as error:
            request(tmp_path, values)
        assert value not in str(error.value)
        assert "hunter2" not in str(error.value)


def test_no_variable_goes_along_that_was_not_named() -> None:
    here = {"AWS_SECRET_ACCESS_KEY": "x", "HOME": "/root", "OMP_NUM_THREADS": "2"}
    assert job_environment([], here) == {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
    given = ["OMP_NUM_THREADS", "A=b=c", "ECGDIST_PATIENT_KEY_FILE=/run/key", "TOKENIZERS_PARALLELISM=false"]
    assert job_environment([*given, "RAY_JOB_STOP_WAIT_TIME_S=120"], here) == {
        "OMP_NUM_THREADS": "2",
        "A": "b=c",
        "ECGDIST_PATIENT_KEY_FILE": "/run/key",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
    }
    for wrong, reason in (
        (["NOT_SET"], "NOT_SET: it is not set here"),
        (["A=1", "A=2"], "given twice"),
        (["=1"], "takes NAME=VALUE"),
        (["RAY_JOB_STOP_WAIT_TIME_S=1.5"], "whole number of seconds"),
    ):
        with pytest.raises(ConfigError, match=reason):
            job_environment(wrong, here)


def test_the_job_says_what_it_is(tmp_path: Path) -> None:
    asked = request(tmp_path, RUN)
    assert asked.metadata == {
        "command": "pretrain",
        "out": "s3://ecg/runs/one",
        "config_sha256": asked.digest,
        "ecgdist": metadata.version("ecgdist"),
        "ray": metadata.version("ray"),
    }
    assert asked.digest == request(tmp_path, RUN | {"seed": 0}).digest, "a default says nothing"
    assert asked.digest != request(tmp_path, RUN, "seed=1").digest
    assert asked.new_id().startswith("pretrain-one-")
    assert asked.new_id() != asked.new_id()
    assert entrypoint_of("pretrain", "/opt/my env/python") == "'/opt/my env/python' job.py pretrain job.yaml"


def test_a_dry_run_shows_what_would_be_sent_and_asks_nobody(tmp_path: Path) -> None:
    words = ["submit", "pretrain", write(tmp_path, RUN), "--set", "steps=9", "--env", "OMP_NUM_THREADS=1"]
    done = CliRunner().invoke(app, [*words, "--dry-run", "--address", "http://127.0.0.1:9"])
    assert done.exit_code == 0, done.output
    assert "kB in 3 files: job.json, job.py, job.yaml" in done.stdout
    assert (
        "to run python job.py pretrain job.yaml\nwith OMP_NUM_THREADS=1 RAY_JOB_STOP_WAIT_TIME_S=60"
        in done.stdout
    )
    shown = yaml.safe_load(done.stdout.partition("TIME_S=60\n")[2])
    assert PretrainConfig.model_validate(shown) == request(tmp_path, RUN, "steps=9").config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["report", "run.yaml"], "report cannot be submitted; these can: pack, pretrain"),
        (["pretrain"], "corpus is required and not given"),
        (["pretrain", "--set", "setps=3"], "unknown key setps"),
    ],
)
def test_what_cannot_be_submitted_is_said(words: list[str], expected: str) -> None:
    done = CliRunner().invoke(app, ["submit", *words, "--address", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert expected in done.output


def test_the_address_is_the_one_given_or_that_of_the_environment() -> None:
    environment = {"RAY_API_SERVER_ADDRESS": "https://there:1/", "RAY_ADDRESS": "10.0.0.1:6379"}
    assert address_of("http://here:2", environment) == "http://here:2"
    assert address_of(None, environment) == "https://there:1"
    assert address_of(None, {"RAY_ADDRESS": "http://there:3"}) == "http://there:3"
    assert address_of(None, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "http://127.0.0.1:8265"


def test_what_is_no_dashboard_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["jobs", "list", "--address", "there:8265"])
    assert "'there:8265' is no address of a dashboard; write http://HOST:8265" in done.output
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        done = CliRunner().invoke(app, ["jobs", "list", "--address", address])
        server.shutdown()
    assert f"what answers at {address} is no Ray dashboard" in done.output
    done = CliRunner().invoke(app, ["jobs", "logs", "some", "--address", address])
    assert f"no Ray dashboard answers at {address} (ConnectionError)" in done.output
    assert done.exit_code == 1
