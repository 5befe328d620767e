"""A helper of the tests of locks, which does without Keras."""

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def held_elsewhere(lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Hold a lock in another thread, which locks like another process."""
    acquired, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            acquired.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert acquired.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()
