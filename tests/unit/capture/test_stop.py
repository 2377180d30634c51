"""Ending early: a long piece of work at once, what must be done not at all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from kdumpy.capture.stop import Stop, Stopped


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give back the signals that a test takes over."""
    kept = {number: signal.getsignal(number)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in kept.items():
        signal.signal(number, handler)


def work(stop: Stop, seconds: float) -> None:
    with stop.interruptible():
        time.sleep(seconds)


def test_a_signal_ends_what_may_be_interrupted_and_nothing_else() -> None:
    stop = Stop()
    stop.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.reason == "SIGTERM came"
    with pytest.raises(Stopped, match="SIGTERM came"):
        work(stop, 30)


def test_a_signal_ends_work_that_runs() -> None:
    stop = Stop()
    stop.install()
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGHUP))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    before = time.monotonic()
    with pytest.raises(Stopped, match="SIGHUP came"):
        work(stop, 30)
    assert time.monotonic() - before < 5


def test_the_time_budget_ends_work_and_is_told() -> None:
    stop = Stop(0.2)
    stop.install()
    assert stop.remaining_s is not None
    assert 0 < stop.remaining_s <= 0.2
    with pytest.raises(Stopped, match="time budget"):
        work(stop, 30)
    assert stop.remaining_s == 0
    assert Stop().remaining_s is None


def test_stopped_is_no_failure_that_code_on_the_way_could_catch() -> None:
    assert not issubclass(Stopped, Exception)


def test_a_worker_just_ends() -> None:
    stop = Stop()
    stop.install()
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    assert stop.reason == ""
