"""Takes a lock of Python's and releases it again, or adds to a value: Lock|Value TURNS."""

import multiprocessing
import sys
import time

from rounds import serve


def main():
    turns = int(sys.argv[2])
    if sys.argv[1] == "Lock":
        lock = multiprocessing.Lock()
        begin = time.perf_counter_ns()
        for _ in range(turns):
            with lock:
                pass
    else:
        value = multiprocessing.Value("Q")
        begin = time.perf_counter_ns()
        for _ in range(turns):
            with value.get_lock():
                value.value += 1
        assert value.value == turns
    wall = time.perf_counter_ns() - begin
    return wall, wall


serve(main)
