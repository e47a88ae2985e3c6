"""Moves items of 64 bytes through Python's queue: PARTIES ITEMS CORE,CORE.

Prints nanoseconds: on the clock, from the first put to the last get, and of all processors.
"""

import multiprocessing
import os
import resource
import sys
import time


def produce(queue, start, core, items):
    os.sched_setaffinity(0, [core])
    start.wait()
    for _ in range(items):
        queue.put(bytes(64))


def consume(queue, start, core, items):
    os.sched_setaffinity(0, [core])
    start.wait()
    for _ in range(items):
        queue.get()


def main():
    parties, items = int(sys.argv[1]), int(sys.argv[2])
    cores = [int(core) for core in sys.argv[3].split(",")]
    context = multiprocessing.get_context("fork")
    queue, start = context.Queue(), context.Barrier(2 * parties + 1)
    processes = []
    for index in range(parties):
        for act, core in (produce, cores[index % 2]), (consume, cores[(index + 1) % 2]):
            arguments = queue, start, core, items // parties
            processes.append(context.Process(target=act, args=arguments))
    for process in processes:
        process.start()
    start.wait()
    begin = time.perf_counter_ns()
    for process in processes:
        process.join()
    wall = time.perf_counter_ns() - begin
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(wall, int((usage.ru_utime + usage.ru_stime) * 1e9))


main()
