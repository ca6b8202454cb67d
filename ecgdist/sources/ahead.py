"""Records from a bucket, a few at once: there it is the answers that take time, not the bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> Iterator[Result]:
    """What `read` gives for each of the items, in their order; at most `at_once` results are held.

    What one of them raises is raised at once, even if those before it hang: storage that refuses us is to be said in
    seconds, and storage that is silent takes minutes. What is under way then is left to itself; when nobody wants the
    rest, it is waited for.
    """
    ahead: deque[Future[Result]] = deque()
    failed: Future[Result] = Future()

    def watched(item: Item) -> Result:
        try:
            return read(item)
        except BaseException as error:
            with suppress(InvalidStateError):  # another one was first
                failed.set_exception(error)
            raise

    def first() -> Result:
        wait((ahead[0], failed), return_when=FIRST_COMPLETED)
        return (failed if failed.done() else ahead.popleft()).result()

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="ecgdist-read")
    try:
        for item in items:
            ahead.append(pool.submit(watched, item))
            if len(ahead) == at_once:
                yield first()
        while ahead:
            yield first()
    finally:
        pool.shutdown(wait=not failed.done(), cancel_futures=True)
