"""What goes wrong in a Ray task reaches the user as the sentence that was written for him."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
import ray

from ecgdist.errors import ConfigError, DataError, EcgdistError, RecordRefused, StorageError
from ecgdist.raytools import blocks, find_user_error, handing_over_errors, ray_session, user_errors
from tests.conftest import free_port

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0)
def fail(error: Exception) -> None:
    raise error


ERRORS = [ConfigError("no such key"), StorageError("the disk is full"), DataError("no corpus")]


@pytest.mark.parametrize("error", ERRORS)
def test_a_data_tasks_error_is_raised_as_itself_without_a_traceback(
    ray_cluster: None, error: EcgdistError, capfd: pytest.CaptureFixture[str]
) -> None:
    def task(batch: dict[str, Any]) -> pa.Table:
        if batch["id"][0] == 3:
            raise error
        return pa.table({"id": batch["id"]})

    numbers = ray.data.from_items([{"id": number} for number in range(5)], override_num_blocks=5)
    with pytest.raises(EcgdistError) as caught:
        list(blocks(numbers.map_batches(handing_over_errors(task), batch_size=1)))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_blocks_are_all_given(ray_cluster: None) -> None:
    numbers = ray.data.from_items([{"id": number} for number in range(5)], override_num_blocks=5)
    doubled = numbers.map_batches(handing_over_errors(lambda b: pa.table({"x": 2 * b["id"]})), batch_size=1)
    assert sorted(block["x"][0].as_py() for block in blocks(doubled)) == [0, 2, 4, 6, 8]


def test_a_refusal_that_nobody_counts_is_an_error_of_the_data(ray_cluster: None) -> None:
    def task(batch: dict[str, Any]) -> pa.Table:
        raise RecordRefused("nan", "a sample without value")

    numbers = ray.data.from_items([{"id": 0}])
    with pytest.raises(DataError, match="nan: a sample without value"):
        list(blocks(numbers.map_batches(handing_over_errors(task), batch_size=1)))


@pytest.mark.parametrize(
    "error", [StorageError("the disk is full"), RecordRefused("nan", "a sample without value")]
)
def test_a_tasks_error_is_raised_as_itself(ray_cluster: None, error: EcgdistError) -> None:
    with pytest.raises(type(error)) as caught, user_errors():
        ray.get(fail.remote(error))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)


def test_a_defect_keeps_its_traceback(ray_cluster: None) -> None:
    with pytest.raises(ray.exceptions.RayTaskError, match="division by zero"), user_errors():
        ray.get(fail.remote(ZeroDivisionError("division by zero")))


def test_an_error_of_this_process_passes_through(ray_cluster: None) -> None:
    with pytest.raises(DataError, match="no corpus"), user_errors():
        raise DataError("no corpus")
    with pytest.raises(RuntimeError, match="something else"), user_errors():
        raise RuntimeError("something else")


def test_the_first_user_error_in_the_chain_is_found() -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = StorageError("cannot be reached")
    assert str(find_user_error(wrapped)) == "cannot be reached"
    assert find_user_error(RuntimeError("alone")) is None


def test_a_circle_of_causes_ends() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert find_user_error(one) is None


def test_a_session_joins_the_cluster_that_is_there(ray_cluster: None) -> None:
    before = ray.cluster_resources()
    with ray_session(num_cpus=1):
        assert ray.cluster_resources() == before
    assert ray.is_initialized()


def test_a_cluster_that_does_not_answer_is_named() -> None:
    """In a process of its own, since this one may be connected to the tests' cluster."""
    code = "from ecgdist.raytools import ray_session\nwith ray_session(1): pass"
    environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "ConfigError: no Ray cluster answers at RAY_ADDRESS = 127.0.0.1:" in done.stderr


@pytest.mark.slow
def test_clusters_one_after_the_other_start_alike_and_say_nothing() -> None:
    """In a process of its own, as above: Ray writes into the settings that it is given."""
    code = """
import os, ray
from ecgdist.raytools import ray_session
for _ in range(2):
    with ray_session(1):
        print(ray.get(ray.remote(os.getenv).remote("MALLOC_ARENA_MAX")))
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n2\n"
    assert "WARNING" not in done.stderr
