"""Progress on the driver's console: one line every few steps, and a bar where there is a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecgdist.errors import EcgdistError
from ecgdist.pretraining.whereabouts import Heard, Place

Message = dict[str, Any]
"""``{"text": ...}`` for a line as it is, ``{"metrics": ...}`` for a row, ``{"error": ...}`` as in `Mailbox.give_up`."""

_LOOK_S = 0.2
_PARTS = (
    "reconstruction",
    "prediction",
    "diversity",
    "feature_penalty",
    "contrastive",
    "code_perplexity",
)


class _Box:
    """The actor behind a mailbox."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._given_up = False
        self._rounds: dict[str, _Round] = {}

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._given_up = self._given_up or "error" in message

    def take(self) -> list[Message]:
        messages, self._messages = self._messages, []
        return messages

    def is_given_up(self) -> bool:
        return self._given_up

    def hear(self, name: str, rank: int, ranks: int, place: Place, process: str) -> dict[int, Heard]:
        return self._rounds.setdefault(name, _Round(ranks)).hear(rank, place, process)

    def say_once(self, name: str, text: str) -> None:
        this = self._rounds[name]
        if not this.has_said:
            this.has_said = True
            self.put({"text": text})


class _Round:
    """Workers that were started together, and where they said that they are."""

    def __init__(self, ranks: int) -> None:
        self._began = time.monotonic()
        self._ranks = ranks
        self._last: dict[int, tuple[Place, str, float]] = {}
        self.has_said = False

    def hear(self, rank: int, place: Place, process: str) -> dict[int, Heard]:
        now = time.monotonic()
        self._last[rank] = (place, process, now)
        return {
            one: Heard(said[0], now - said[2], said[1])
            if (said := self._last.get(one)) is not None
            else Heard(None, now - self._began, "")
            for one in range(self._ranks)
        }


class Mailbox:
    """Carries messages from workers to the driver. A driver that is gone does not stop the training."""

    def __init__(self) -> None:
        # On the driver's node and nowhere else, so that no other node takes it along. Its process alone may be killed,
        # by Ray itself where memory is short: then it starts anew, and only what had not been fetched is lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {
            "num_cpus": 0,
            "scheduling_strategy": here,
            "max_restarts": -1,
            "max_task_retries": -1,
            # It is asked five times a second, and Ray's control service would remember each of the last 100,000 times.
            "enable_task_events": False,
        }
        self._box = ray.remote(_Box).options(**options).remote()

    def post(self, message: Message) -> None:
        """Send one message."""
        try:
            ray.get(self._box.put.remote(message))
        except RayActorError:
            return

    def give_up(self, error: EcgdistError) -> None:
        """Tell that training ends with an error that another try would meet again."""
        self.post({"error": error})

    @property
    def is_given_up(self) -> bool:
        """Whether a worker gave up: those that Ray Train starts in its place have nothing to do."""
        try:
            return bool(ray.get(self._box.is_given_up.remote()))
        except RayActorError:
            return False

    def hear(self, round_name: str, rank: int, ranks: int, place: Place, process: str) -> dict[int, Heard]:
        """Say where a rank is; of all ranks that were started with it, what was heard last.

        Nothing, where the driver is gone: nobody could start them again.
        """
        try:
            heard: dict[int, Heard] = ray.get(self._box.hear.remote(round_name, rank, ranks, place, process))
        except RayActorError:
            return {}
        return heard

    def say_once(self, round_name: str, text: str) -> None:
        """Tell the user, if no other rank of those that were started together has."""
        try:
            ray.get(self._box.say_once.remote(round_name, text))
        except RayActorError:
            return

    def receive(self) -> list[Message]:
        """What was sent since the last call."""
        messages: list[Message] = ray.get(self._box.take.remote())
        return messages

    def close(self) -> None:
        """End the actor behind the mailbox."""
        ray.kill(self._box)


class ProgressView:
    """Prints what arrives in a mailbox while a block runs, and raises the error that training ended with."""

    def __init__(
        self, console: Console, mailbox: Mailbox, total_steps: int, what: str = "pretraining"
    ) -> None:
        self._console, self._mailbox, self._total, self._what = console, mailbox, total_steps, what
        self._stop = threading.Event()
        self._error: EcgdistError | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show progress while the block runs; everything sent before its end is shown.

        Raises:
            EcgdistError: the first that a worker gave up with, whatever became of the others by that.
        """
        columns = (TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, transient=True
        ) as bar:
            task = bar.add_task("steps", total=self._total)
            thread = threading.Thread(target=self._follow, args=(bar, task), name="console", daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()
                if self._error is not None:
                    raise self._error

    def _follow(self, bar: Progress, task: Any) -> None:
        while True:
            stopping = self._stop.is_set()
            try:
                messages = self._mailbox.receive()
            except RayActorError as error:
                self._console.print(
                    f"WARNING: what workers say is not shown any more ({error}); the run's metrics.jsonl goes on",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
                return
            for message in messages:
                self._show(message, bar, task)
            if stopping:
                return
            time.sleep(_LOOK_S)

    def _show(self, message: Message, bar: Progress, task: Any) -> None:
        if "metrics" in message:
            bar.update(task, completed=message["metrics"]["step"])
            self._console.print(line(message["metrics"], self._total), highlight=False, soft_wrap=True)
        if "text" in message:
            self._console.print(message["text"], highlight=False, markup=False, soft_wrap=True)
        if "error" in message:
            self._error = self._error or message["error"]


def line(row: Message, total_steps: int) -> str:
    """One row of metrics as a line of text."""
    named = ", ".join(f"{name} {row[name]:.4f}" for name in _PARTS if name in row)
    parts = f" ({named})" if named else ""
    mfu = f"  MFU {row['mfu']:.0%}" if "mfu" in row else ""
    left = timedelta(seconds=round((total_steps - row["step"]) * row["seconds_per_step"]))
    return (
        f"step {row['step']}/{total_steps}  loss {row['loss']:.4f}{parts}  {row['ecg_per_s']:,.0f} ECG/s{mfu}  "
        f"waiting {row['waiting_share']:.0%}  gradient {row['gradient_norm']:.2f}  "
        f"lr {row['learning_rate']:.1e}  ETA {left}"
    )
