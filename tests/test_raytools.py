"""What goes wrong in a Ray task reaches the user as the sentence that was written for him."""

from __future__ import annotations

import pytest
import ray

from ecgdist.errors import DataError, EcgdistError, RecordRefused, StorageError
from ecgdist.raytools import find_user_error, ray_session, user_errors

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0)
def fail(error: Exception) -> None:
    raise error


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
