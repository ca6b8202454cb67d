"""Groups of real processes that share a gloo group (and NCCL on a GPU): what a test of collective code runs on."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ecgdist.errors import EcgdistError

_ANSWER_S = 240
_COLLECTIVE_S = 60


class Processes:
    """A group of processes that lives for many tests, since a fresh one takes seconds to import DeepSpeed.

    Attributes:
        extensions: the folder in which torch would compile C++ extensions.
    """

    def __init__(self, world_size: int, folder: Path, answer_s: float = _ANSWER_S) -> None:
        self._answer_s = answer_s
        self.extensions = folder / "extensions"
        self.extensions.mkdir()
        context = multiprocessing.get_context("spawn")
        self._members = []
        for rank in range(world_size):
            here, there = context.Pipe()
            member = context.Process(target=_serve, args=(there, rank, world_size, folder), daemon=True)
            member.start()
            there.close()
            self._members.append((member, here))

    @property
    def alive(self) -> bool:
        """Whether every process still answers."""
        return all(member.is_alive() for member, _ in self._members)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What the function returns in every process, by rank; an `EcgdistError` comes back as a value."""
        for _, connection in self._members:
            connection.send((function, arguments))
        deadline = time.monotonic() + self._answer_s
        return [self._answer(rank, deadline) for rank in range(len(self._members))]

    def close(self) -> None:
        """End the processes."""
        for member, connection in self._members:
            connection.close()
            member.terminate()
            member.join()

    def _answer(self, rank: int, deadline: float) -> Any:
        _, connection = self._members[rank]
        try:
            if connection.poll(max(0.0, deadline - time.monotonic())):
                return connection.recv()
            reason = f"gave no answer within {self._answer_s:.0f} s"
        except EOFError:
            reason = "ended with the error shown on standard error"
        self.close()
        raise RuntimeError(f"rank {rank} {reason}")


class Groups:
    """Groups of processes by size, each started when it is first asked for."""

    def __init__(self) -> None:
        self._by_size: dict[int, Processes] = {}

    def of_size(self, world_size: int, folders: pytest.TempPathFactory) -> Processes:
        """The group of this size; one that broke in an earlier test is replaced."""
        if world_size in self._by_size and not self._by_size[world_size].alive:
            self._by_size.pop(world_size).close()
        if world_size not in self._by_size:
            self._by_size[world_size] = Processes(world_size, folders.mktemp(f"group-of-{world_size}"))
        return self._by_size[world_size]

    def close(self) -> None:
        """End them all."""
        while self._by_size:
            self._by_size.popitem()[1].close()


def _serve(connection: Connection, rank: int, world_size: int, folder: Path) -> None:
    """Do what is asked, until the other end closes; an error that is not ours ends the process."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
    }
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=_COLLECTIVE_S)
    )
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = function(*arguments)
        except EcgdistError as error:
            answer = error
        connection.send(answer)
        del answer, arguments
        gc.collect()  # engines hold each other in circles, and a group serves dozens of them
