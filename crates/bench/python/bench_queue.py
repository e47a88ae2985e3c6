"""Moves items of 64 bytes through a queue of Python's: KIND PARTIES CORE,CORE ITEMS."""

import multiprocessing
import os
import resource
import sys
import time

from rounds import serve


def produce(queue, start, core, items):
    os.sched_setaffinity(0, [core])
    start.wait()
    for _ in range(items):
        queue.put(bytes(64))


def consume(queue, start, core, items):
    os.sched_setaffinity(0, [core])
    start.wait()
    for _ in range(items):
        assert len(queue.get()) == 64


def used():
    """Nanoseconds that all processes which have ended have used of processors."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


def main():
    kind, parties, items = sys.argv[1], int(sys.argv[2]), int(sys.argv[4])
    cores = [int(core) for core in sys.argv[3].split(",")]
    context = multiprocessing.get_context("fork")
    queue, start = getattr(context, kind)(), context.Barrier(2 * parties + 1)
    processes = []
    for index in range(parties):
        for act, core in (produce, cores[index % 2]), (consume, cores[(index + 1) % 2]):
            arguments = queue, start, core, items // parties
            processes.append(context.Process(target=act, args=arguments))
    for process in processes:
        process.start()
    start.wait()
    before, begin = used(), time.perf_counter_ns()
    for process in processes:
        process.join()
    wall = time.perf_counter_ns() - begin
    assert all(process.exitcode == 0 for process in processes)
    return wall, used() - before


serve(main)
