"""The clock that stops commands: what burns time without a sign of life, in Python and in C."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time

import pytest

from kdumpy.kernel.deadline import Deadline, TookTooLong


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_what_gives_no_sign_of_life_is_stopped() -> None:
    deadline = Deadline(0.2)
    with pytest.raises(TookTooLong) as stopped, deadline.running():
        burn(5)
    assert stopped.value.seconds == 0.2
    burn(0.4)                   # the clock does not run any more


def test_errors_that_are_kept_in_memory_do_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for last in (sys.__stderr__, None):
        monkeypatch.setattr(sys, "__stderr__", last)
        with pytest.raises(TookTooLong), Deadline(0.1).running():
            burn(5)


def test_a_sign_of_life_starts_the_time_again() -> None:
    deadline = Deadline(0.3)
    with deadline.running():
        for _ in range(8):
            burn(0.1)
            deadline.alive()


def test_an_error_handler_that_takes_it_for_its_own_is_stopped_too() -> None:
    def stubborn() -> None:
        while True:
            try:
                burn(5)
            except BaseException:       # the next ring comes a second later, in the handler
                burn(1.5)

    with pytest.raises(TookTooLong), Deadline(0.1).running():
        stubborn()


def test_the_users_own_code_and_waiting_take_any_time() -> None:
    deadline = Deadline(0.1)
    with deadline.running():
        time.sleep(0.3)
        with deadline.paused():
            burn(0.3)
        with deadline.running():        # of a command that another runs: the same clock
            pass
    with Deadline(0).running():
        burn(0.2)


def test_c_code_that_does_not_come_back_ends_the_process_and_says_where() -> None:
    code = ("import kdumpy.kernel.deadline as deadline\n"
            "deadline._GRACE = 0.3\n"
            "with deadline.Deadline(0.2).running():\n"
            "    sum(range(10 ** 13))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGVTALRM
    assert 'File "<string>", line 4' in done.stderr
