"""Order, bounds and errors of the ordered map. Scoring itself is tested where a model is at hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lastresort.batch import available_cpus, map_ordered

WORKERS = [1, 2, 5]


class Source:
    """Counts, and knows how many items were taken; fails at `fail_at`."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.count, self.fail_at, self.taken = count, fail_at, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            if number == self.fail_at:
                raise KeyError("source")
            self.taken += 1
            yield number


def double(number: int) -> int:
    """The function of most tests."""
    return 2 * number


def collect(results: Iterator[int]) -> tuple[list[int], str]:
    """All results, and the error that came after them."""
    seen: list[int] = []
    try:
        for result in results:
            seen.append(result)
    except (KeyError, ZeroDivisionError) as error:
        return seen, type(error).__name__
    return seen, ""


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 300])
def test_results_come_in_the_order_of_the_input(workers: int, count: int) -> None:
    assert list(map_ordered(double, range(count), workers)) == [2 * n for n in range(count)]


def test_order_holds_when_the_first_item_is_the_last_to_finish() -> None:
    others_done = threading.Event()

    def wait_for_the_others(number: int) -> int:
        if number == 0:
            assert others_done.wait(60)
        elif number == 7:  # the last that fits beside the waiting first one
            others_done.set()
        return number

    assert list(map_ordered(wait_for_the_others, range(50), 2)) == list(range(50))


@pytest.mark.parametrize("workers", WORKERS)
def test_the_input_is_read_only_as_needed(workers: int) -> None:
    source = Source(10_000)
    results = map_ordered(double, source, workers)
    assert source.taken == 0
    for number in range(100):
        assert next(results) == 2 * number
        assert source.taken < number + 4 * workers + 1
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", WORKERS)
def test_an_endless_input_can_be_read_from(workers: int) -> None:
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    results = map_ordered(double, endless(), workers)
    assert [next(results) for _ in range(20)] == [2 * n for n in range(20)]
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("at", [0, 1, 9, 99])
def test_an_exception_of_the_function_comes_after_all_earlier_results(workers: int, at: int) -> None:
    assert collect(map_ordered(lambda number: 100 // (at - number) * 0 + number, range(100), workers)) == (list(range(at)), "ZeroDivisionError")


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("at", [0, 1, 9, 99])
def test_an_exception_of_the_input_comes_after_all_earlier_results(workers: int, at: int) -> None:
    """A bad line far down a file must not swallow the results of the good lines above it, on threads as little as without."""
    assert collect(map_ordered(double, Source(100, fail_at=at), workers)) == ([2 * n for n in range(at)], "KeyError")


def test_after_an_exception_nothing_more_is_started() -> None:
    source = Source(10_000)
    started: list[int] = []

    def fail_first(number: int) -> int:
        started.append(number)
        if number == 0:
            raise ZeroDivisionError
        return number

    assert collect(map_ordered(fail_first, source, 2)) == ([], "ZeroDivisionError")
    assert source.taken < 4 * 2 + 1
    assert len(started) < 4 * 2 + 1


@pytest.mark.parametrize("workers", WORKERS)
def test_a_generator_closed_early_leaves_no_thread_behind(workers: int) -> None:
    before = set(threading.enumerate())
    source = Source(10_000)
    results = map_ordered(double, source, workers)
    assert [next(results), next(results)] == [0, 2]
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []
    assert set(threading.enumerate()) <= before
    assert source.taken < 4 * workers + 3


def test_work_is_done_on_threads_and_one_worker_needs_none() -> None:
    here = threading.get_ident()
    assert set(map_ordered(lambda _: threading.get_ident(), range(20), 1)) == {here}
    assert here not in set(map_ordered(lambda _: threading.get_ident(), range(20), 2))


def test_at_most_as_many_run_at_once_as_there_are_workers() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def watch(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        total = sum(range(2000))
        with lock:
            running -= 1
        return number + total * 0

    assert list(map_ordered(watch, range(200), 3)) == list(range(200))
    assert most < 4


def test_there_is_at_least_one_cpu() -> None:
    assert available_cpus() >= 1
    assert isinstance(available_cpus(), int)
