"""Stopping a run by signal: Ctrl-C, SIGTERM and SIGUSR2 set a flag that is read between steps.

SIGUSR2 is what a cluster sends before the wall time.

Stopping inside a step would leave weights half updated; a resume from them would not be exact.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """Yield an event that a signal sets; the handlers before are put back at the end.

    Outside the main thread, where Python allows no handlers, the event is never set.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    before = {number: signal.signal(number, lambda *_: requested.set()) for number in SIGNALS}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
