"""What a machine must have, by machines that are made up."""

from __future__ import annotations

from dataclasses import replace

from ecgdist.doctor.machine import (
    Machine,
    cores_finding,
    gpu_finding,
    memory_finding,
    own_address_finding,
    scratch_finding,
    shm_finding,
)

MACHINE = Machine(cores=8, shm_bytes=8 * 10**9, memory_bytes=32 * 10**9, scratch_bytes=50 * 10**9)


def test_this_machine_is_looked_at() -> None:
    here = Machine.here()
    assert here.cores >= 1
    assert here.shm_bytes is None or here.shm_bytes > 0
    assert here.memory_bytes > 10**6
    assert here.scratch_bytes > 0


def test_a_shared_memory_too_small_for_the_object_store_is_an_error() -> None:
    docker = replace(MACHINE, shm_bytes=64 * 2**20)
    found = shm_finding(docker, 400_000_000)
    assert found.level == "error"
    assert found.measured == "/dev/shm has 0.07 GB, the object store takes 0.40 GB"
    assert found.advice is not None
    assert "0.44 GB: --shm-size" in found.advice
    assert shm_finding(replace(MACHINE, shm_bytes=None), 1).level == "error"
    assert shm_finding(MACHINE, 8 * 10**9).level == "ok"


def test_more_workers_than_cores_take_turns() -> None:
    assert cores_finding(MACHINE, logical_cpus=16, workers=8).level == "ok"
    found = cores_finding(MACHINE, logical_cpus=18, workers=9)
    assert found.level == "warning"
    assert "--workers 8 is as fast" in str(found.advice)


def test_what_does_not_fit_is_an_error() -> None:
    assert memory_finding(MACHINE, 32e9, 2).level == "ok"
    assert memory_finding(MACHINE, 33e9, 2).level == "error"
    assert scratch_finding(MACHINE, 50e9).level == "ok"
    assert scratch_finding(MACHINE, 51e9).level == "error"


def test_gpus_are_asked_of_torch() -> None:
    h100 = "NVIDIA H100 80GB HBM3"
    two = replace(MACHINE, gpus=(h100, h100), has_nvidia=True, nccl="2.27.5")
    assert gpu_finding(two, wanted=True).measured == f"2 ({h100}), NCCL 2.27.5"
    assert gpu_finding(replace(two, nccl=None), wanted=True).level == "error"
    assert gpu_finding(replace(two, gpus=(h100,), nccl=None), wanted=True).level == "ok"
    unseen = replace(MACHINE, has_nvidia=True)
    assert [gpu_finding(unseen, wanted).level for wanted in (False, True)] == ["warning", "error"]
    assert [gpu_finding(MACHINE, wanted).level for wanted in (False, True)] == ["ok", "error"]


def test_a_name_that_stands_for_the_machine_itself_is_no_address_for_others() -> None:
    assert own_address_finding(replace(MACHINE, own_address="10.0.0.7")).level == "ok"
    for alone in ("127.0.1.1", "127.0.0.1", None):
        found = own_address_finding(replace(MACHINE, own_address=alone))
        assert found.level == "warning"
        assert "GLOO_SOCKET_IFNAME" in str(found.advice)
    told = replace(MACHINE, own_address="127.0.1.1", gloo_interface="eth1")
    assert own_address_finding(told).measured == "gloo uses eth1"
