"""What a supervisor decides: delays, limits, and words for an end."""

from __future__ import annotations

import signal

import pytest

from clihelper.backoff import jittered
from clihelper.supervisor.policy import (
    HEALTHY,
    RestartBackoff,
    StartFailures,
    describe,
    exit_status,
)


def low(least, most):
    return least


def high(least, most):
    return most


def test_the_delay_doubles_up_to_a_cap_and_a_healthy_minute_resets_it():
    backoff = RestartBackoff(uniform=high)
    assert [backoff.next() for _ in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.next(lived=HEALTHY - 1) == 1.0
    assert backoff.next(lived=HEALTHY) == 0.0
    assert backoff.next() == 0.1


def test_after_a_failed_start_it_is_never_at_once_and_at_most_three_seconds():
    backoff = RestartBackoff(uniform=high)
    delays = [backoff.next(was_ready=False) for _ in range(7)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    assert backoff.next() == 1.0


def test_the_delay_has_jitter_and_does_not_overflow():
    backoff = RestartBackoff(uniform=low)
    delays = [backoff.next() for _ in range(5000)]
    assert delays[:4] == [0.0, 0.05, 0.1, 0.2]
    assert delays[-1] == 0.5


def test_three_failures_in_a_row_are_too_many():
    failures = StartFailures()
    assert [failures.failed(1, 'no hands') for _ in range(2)] == [False, False]
    assert failures.reasons == {1: 'no hands'}
    assert failures.ready(1)
    assert not failures.ready(2)
    assert failures.reasons == {}
    assert [failures.failed(1, 'no hands') for _ in range(3)] == [False, False, True]


def test_a_limit_is_never_exceeded():
    assert jittered(100, low) == 80
    assert jittered(100, high) == 100
    assert jittered(None) is None
    assert all(80 <= jittered(100) <= 100 for _ in range(100))


@pytest.mark.parametrize(
    ('status', 'words', 'of_the_service'),
    [
        (0, 'status 0', 1),
        (3, 'status 3', 3),
        (-signal.SIGSEGV, 'SIGSEGV', 139),
        (-signal.SIGKILL, 'SIGKILL (out of memory?)', 137),
        (-40, 'signal 40', 168),
    ],
)
def test_an_end_in_words_and_as_a_status(status, words, of_the_service):
    assert describe(status) == words
    assert exit_status(status) == of_the_service
