"""SIGTERM and SIGINT to the driver: the first asks the run to save and stop, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")


@contextmanager
def heeding_signals(stop: Callable[[str], object]) -> Iterator[None]:
    """Call `stop` with the name of the first signal that comes while the block runs; a second one ends the process.

    Outside of the main thread, where Python sets no handlers, signals are left to whoever has it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def heed(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            raise SystemExit(128 + number)
        received = True
        stop(signal.Signals(number).name)

    before = {number: signal.signal(number, heed) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def beside_signals(work: Callable[[], T]) -> T:
    """What `work` gives, done in another thread, so that it neither delays signal handlers nor sets its own.

    (`TorchTrainer.fit` in the main thread takes SIGINT for itself, and aborts.)
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="training", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
