"""Hosts in turn, rows that wait, and an end for every thread."""

import threading
import time

from rebus.data.downloading.host_scheduler import HostScheduler, Job


def turns_of(hosts: str, per_host: int) -> HostScheduler:
    return HostScheduler([Job(n, "", host) for n, host in enumerate(hosts)], per_host)


def test_hosts_take_turns_and_full_ones_wait():
    turns = turns_of("aaaab", 2)
    taken = [turns.take() for _ in range(3)]
    assert [job.row for job in taken] == [0, 4, 1]
    turns.finish(taken[0])
    assert turns.take().row == 2
    turns.close()
    assert turns.take() is None


def test_a_row_comes_again_after_its_time():
    turns = turns_of("ab", 1)
    first = turns.take()
    began = time.monotonic()
    turns.again(first, 0.1)
    second = turns.take()
    assert second.row == 1
    turns.finish(second)
    assert turns.take() is first
    assert time.monotonic() - began >= 0.1
    turns.finish(first)
    assert turns.take() is None


def test_many_threads_finish_each_row_once():
    turns, done, lock = turns_of("abcdefgh" * 100 + "a" * 200, 3), [], threading.Lock()

    def work():
        while (job := turns.take()) is not None:
            if job.row % 7 == 0 and not job.tries:
                job.tries = 1
                turns.again(job, 0.001)
                continue
            with lock:
                done.append(job.row)
            turns.finish(job)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(done) == list(range(1000))
