"""The lease of a run's folder: one holder at a time, and a dead one keeps nobody out for long."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ecgdist import storage
from ecgdist.errors import ConfigError, StorageError, TrainingError
from ecgdist.identity import ProcessIdentity
from ecgdist.lease import BEAT_S, EXPIRES_S, LEASE, Lease, expires_in_s, still_holds
from ecgdist.s3 import TIMEOUT
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.faulty_s3 import FAULTS, faulty_s3

_BEAT_S, _EXPIRES_S = 0.1, 1.5


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "run")
    request.getfixturevalue("s3")
    return Location.of(f"s3://ecg/leases/{os.urandom(4).hex()}")


def take(run: Location, said: list[str] | None = None) -> Lease:
    say: Callable[[str], None] = [].append if said is None else said.append
    return Lease.take(run, say, beat_s=_BEAT_S, expires_s=_EXPIRES_S)


def elsewhere(run: Location) -> None:
    """Make the holder look like a process of another machine, which cannot be seen from here."""
    machine = ProcessIdentity.mine().machine
    content = (run / LEASE).read_bytes()
    (run / LEASE).write_bytes(content.replace(machine.encode(), b"f" * 16))


HOLDER = """
import sys, time
from ecgdist.lease import Lease
from ecgdist.storage import Location
lease = Lease.take(Location.of(sys.argv[1]), print, beat_s=0.1, expires_s=1.5)
print("held", lease.token, flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(run: Location) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, run.uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("held")
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def pause(holder: subprocess.Popen[str], run: Location) -> None:
    """Stop the holder between two heartbeats: in the middle of one it would keep the lock of the file."""
    while True:
        holder.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_STOPPED)
        if run.is_s3 or is_free(Path(run.uri) / f".{LEASE}.lock"):
            return
        holder.send_signal(signal.SIGCONT)
        time.sleep(_BEAT_S / 3)


def is_free(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_lock_that_a_stopped_process_keeps_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_S", 0.2)
    lock = tmp_path / ".note.lock"
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="seems to stand still; end it") as raised:
            Location.of(tmp_path / "note").exchange(None, b"1")
        assert raised.value.may_pass
    assert Location.of(tmp_path / "note").exchange(None, b"1")


def test_a_second_process_is_refused_while_the_first_lives(
    run: Location, holder: subprocess.Popen[str]
) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match=f"is in use by process {holder.pid} .* which lives"):
        take(run, said)
    assert len(said) == 1
    assert "watching" in said[0]


def test_a_process_that_was_killed_here_keeps_nobody_out(
    run: Location, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    said: list[str] = []
    with take(run, said):
        assert said == []


def test_a_process_that_died_elsewhere_is_waited_for(run: Location, holder: subprocess.Popen[str]) -> None:
    """Nobody can see that it is dead, so its heartbeat is watched."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    elsewhere(run)
    said: list[str] = []
    with take(run, said) as lease:
        assert still_holds(run, lease.token)
    assert ["watching" in said[0], "taking over" in said[1]] == [True, True]


def test_death_during_the_watch_is_noticed(run: Location, holder: subprocess.Popen[str]) -> None:
    """Of a process that is stopped and then killed."""
    holder.send_signal(signal.SIGSTOP)
    killer = threading.Timer(0.4, holder.kill)
    killer.start()
    waiter = threading.Thread(target=holder.wait)  # until then it is a zombie, which counts as dead
    waiter.start()
    said: list[str] = []
    with take(run, said):
        assert len(said) == 1
    killer.join()
    waiter.join()


def test_a_lease_that_was_given_back_is_taken_at_once(run: Location) -> None:
    with take(run) as first:
        assert still_holds(run, first.token)
    assert not still_holds(run, first.token)
    elsewhere(run)
    said: list[str] = []
    with take(run, said) as second:
        assert said == []
        assert second.token != first.token


def test_it_is_given_back_after_an_error_too(run: Location) -> None:
    with pytest.raises(ZeroDivisionError), take(run) as lease:
        raise ZeroDivisionError
    assert not still_holds(run, lease.token)


def test_who_was_paused_too_long_has_lost_it(run: Location, holder: subprocess.Popen[str]) -> None:
    """And learns it at its next heartbeat; what it holds in its hands it does not write any more."""
    pause(holder, run)
    elsewhere(run)  # its own note differs from what it wrote itself, as if another had taken over
    with take(run) as lease:
        holder.send_signal(signal.SIGCONT)
        until(lambda: (run / LEASE).read_bytes().count(lease.token.encode()) == 1)
        time.sleep(5 * _BEAT_S)
        assert still_holds(run, lease.token)
        lease.check()


def test_the_holder_learns_that_it_was_replaced(run: Location) -> None:
    lease = take(run)
    (run / LEASE).delete()
    with take(run) as other:
        until(lambda: not is_held(lease))
        with pytest.raises(TrainingError, match="was taken over by process"):
            lease.check()
        lease.release()
        assert still_holds(run, other.token), "giving back what is lost changes nothing"


def test_of_many_at_once_one_gets_it(run: Location) -> None:
    """First in an empty folder, then after a death."""
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: taken_or_none(run), range(8)))
        (winner,) = [lease for lease in outcomes if lease is not None]
        assert still_holds(run, winner.token)
        winner._ending.set()  # dies without a word
        winner._thread.join()
        elsewhere(run)


def test_a_note_that_cannot_be_read_is_taken_over_after_a_while(run: Location) -> None:
    (run / LEASE).write_bytes(b"{")
    said: list[str] = []
    with take(run, said):
        assert "whose note cannot be read" in said[0]


def test_no_clock_is_compared(run: Location, holder: subprocess.Popen[str]) -> None:
    """A holder whose clock is years behind is alive as long as its heartbeat moves."""
    content = (run / LEASE).read_bytes()
    year = time.strftime("%Y", time.gmtime()).encode()
    assert content.count(b'"began":"' + year) == 1
    holder.kill()
    holder.wait()
    (run / LEASE).write_bytes(content.replace(b'"began":"' + year, b'"began":"1970'))
    elsewhere(run)
    beating = threading.Event()

    def beat() -> None:
        for number in range(1000, 1100):
            note = (run / LEASE).read_bytes()
            before = note[note.index(b'"beat":') : note.index(b',"released"')]
            (run / LEASE).write_bytes(note.replace(before, b'"beat":%d' % number))
            if beating.wait(_BEAT_S):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ConfigError, match=r"since 1970.* which lives"):
            take(run)
    finally:
        beating.set()
        thread.join()


def test_the_usual_times_fit_the_promise() -> None:
    """Expired within a minute; and one request that storage leaves without an answer does not cost the lease."""
    assert BEAT_S + 30 + 10 < expires_in_s(0.0) == EXPIRES_S < 60


@pytest.mark.parametrize("request_s", [0.1, 1.0, 2.0, 5.0, 7.5, 10.0, 15.0, 20.0])
def test_slow_storage_neither_keeps_a_dead_lease_nor_costs_a_living_one(request_s: float) -> None:
    """Reading before the watch, reading and writing after it; reading and writing for a heartbeat."""
    assert expires_in_s(request_s) > max(BEAT_S, 2 * request_s)
    assert request_s + expires_in_s(request_s) + 2 * request_s < 60 or request_s > 10


@pytest.mark.slow
def test_a_lease_expires_within_a_minute_of_a_death(run: Location, holder: subprocess.Popen[str]) -> None:
    """With the usual times, of a process that cannot be seen from here; the watch begins before the death."""
    died_s: list[float] = []

    def kill() -> None:
        holder.kill()
        holder.wait()
        died_s.append(time.monotonic())

    holder.send_signal(signal.SIGSTOP)
    elsewhere(run)
    killer = threading.Timer(2, kill)
    killer.start()
    with Lease.take(run, lambda _: None) as lease:
        assert time.monotonic() - died_s[0] < 60
        assert still_holds(run, lease.token)
    killer.join()


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("request_s", [pytest.param(5.0, marks=pytest.mark.long), 10.0])
def test_a_lease_in_slow_storage(s3: S3Server, monkeypatch: pytest.MonkeyPatch, request_s: float) -> None:
    """With the usual times, of a process that cannot be seen from here: kept while it lives, and a minute more.

    Counted from its last heartbeat, which may still be on its way when it dies.
    """
    direct = Location.of(f"s3://ecg/leases/{os.urandom(4).hex()}")
    with faulty_s3(s3.endpoint, one_in=0, latency_s=request_s) as proxy:
        code = HOLDER.replace("beat_s=0.1, expires_s=1.5", "")
        environment = os.environ | {"AWS_ENDPOINT_URL": proxy.endpoint}
        holder = subprocess.Popen(
            [sys.executable, "-c", code, direct.uri], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline().startswith("held")
            monkeypatch.setattr(ProcessIdentity, "is_dead_here", lambda _: False)
            with monkeypatch.context() as slowly:
                slowly.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
                for _ in range(2):
                    with pytest.raises(ConfigError, match="which lives"):
                        Lease.take(direct, lambda _: None)
                holder.kill()
                holder.wait()
                until(lambda: proxy.idle)
                died_s = time.monotonic()
                lease = Lease.take(direct, lambda _: None)
                assert time.monotonic() - died_s < 60
            with lease:
                assert still_holds(direct, lease.token)
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()


def taken_or_none(run: Location) -> Lease | None:
    try:
        return take(run)
    except ConfigError:
        return None


def is_held(lease: Lease) -> bool:
    try:
        lease.check()
    except TrainingError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.s3
def test_requests_that_fail_do_not_cost_the_lease(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even those that the server has done, and whose answer is lost: a heartbeat knows its own."""
    monkeypatch.setenv(TIMEOUT, "1")
    with faulty_s3(s3.endpoint, one_in=3, latency_s=0, silence_s=3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        run = Location.of(f"s3://ecg/leases/{os.urandom(4).hex()}")
        with Lease.take(run, beat_s=0.02, expires_s=5) as lease:
            until(lambda: proxy.done["lost"] >= 4, 120)
            lease.check()
            assert still_holds(run, lease.token)
        assert not still_holds(run, lease.token)
        assert set(proxy.done) == set(FAULTS)
