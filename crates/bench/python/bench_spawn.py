"""Starts processes and joins them: METHOD PROCESSES."""

import multiprocessing
import sys
import time

from rounds import serve


def act(number):
    assert number == 1


def one(context):
    process = context.Process(target=act, args=(1,))
    process.start()
    process.join()
    assert process.exitcode == 0


def main():
    context = multiprocessing.get_context(sys.argv[1])
    begin = time.perf_counter_ns()
    for _ in range(int(sys.argv[2])):
        one(context)
    return time.perf_counter_ns() - begin, "-"


if __name__ == "__main__":
    serve(main)
