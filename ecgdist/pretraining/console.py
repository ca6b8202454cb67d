"""Progress on the driver's console: one line every few steps, and a bar where there is a terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ray.exceptions import RayActorError
from ray.util.queue import Empty, Queue
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Message = dict[str, Any]
"""``{"text": ...}`` for a line as it is, ``{"metrics": ...}`` for a row, ``{"error": ...}`` at the end."""


class Mailbox:
    """Carries messages from rank 0 to the driver. A driver that is gone does not stop the training."""

    def __init__(self) -> None:
        self._queue = Queue(actor_options={"num_cpus": 0})

    def post(self, message: Message) -> None:
        """Send one message."""
        try:
            self._queue.put_nowait(message)
        except RayActorError:
            return

    def receive(self, wait_s: float) -> Message | None:
        """The next message, or None if none came within `wait_s` seconds."""
        try:
            message: Message = self._queue.get(timeout=wait_s)
        except Empty:
            return None
        return message

    def close(self) -> None:
        """End the actor behind the mailbox."""
        self._queue.shutdown()


class ProgressView:
    """Prints what arrives in a mailbox while a block runs, and keeps the error that training ended with."""

    def __init__(self, console: Console, mailbox: Mailbox, total_steps: int) -> None:
        self._console, self._mailbox, self._total = console, mailbox, total_steps
        self._stop = threading.Event()
        self.error: BaseException | None = None

    @contextmanager
    def showing(self) -> Iterator[ProgressView]:
        """Show progress while the block runs; everything sent before its end is shown."""
        columns = (TextColumn("pretraining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, transient=True
        ) as bar:
            task = bar.add_task("steps", total=self._total)
            thread = threading.Thread(target=self._follow, args=(bar, task), name="console", daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                thread.join()

    def _follow(self, bar: Progress, task: Any) -> None:
        while True:
            stopping = self._stop.is_set()
            try:
                message = self._mailbox.receive(0.5)
            except RayActorError:
                return
            if message is None:
                if stopping:
                    return
                continue
            if "metrics" in message:
                bar.update(task, completed=message["metrics"]["step"])
                self._console.print(line(message["metrics"], self._total), highlight=False, soft_wrap=True)
            if "text" in message:
                self._console.print(message["text"], highlight=False, markup=False, soft_wrap=True)
            if "error" in message:
                self.error = message["error"]


def line(row: Message, total_steps: int) -> str:
    """One row of metrics as a line of text."""
    parts = ", ".join(f"{name} {row[name]:.4f}" for name in ("reconstruction", "contrastive") if name in row)
    left = timedelta(seconds=round((total_steps - row["step"]) * row["seconds_per_step"]))
    return (
        f"step {row['step']}/{total_steps}  loss {row['loss']:.4f} ({parts})  {row['ecg_per_s']:,.0f} ECG/s  "
        f"waiting {row['waiting_share']:.0%}  gradient {row['gradient_norm']:.2f}  "
        f"lr {row['learning_rate']:.1e}  ETA {left}"
    )
