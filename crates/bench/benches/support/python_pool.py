"""Runs tasks on Python's pools of two workers: PART UNITS. Prints nanoseconds, without start and end."""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

WORKERS = 2


def square(x):
    return x * x


def work(micros):
    end = time.perf_counter() + micros / 1e6
    while time.perf_counter() < end:
        pass


def timed(act):
    begin = time.perf_counter_ns()
    act()
    print(time.perf_counter_ns() - begin)


def memory(pool):
    pool.map(square, range(1000))
    for worker in multiprocessing.active_children():
        with open(f"/proc/{worker.pid}/smaps_rollup") as file:
            fields = {line.split()[0]: line.split()[1] for line in file}
        private = int(fields["Private_Clean:"]) + int(fields["Private_Dirty:"])
        print(f"  private {private:>7}   proportional {fields['Pss:']:>7}   all {fields['Rss:']:>7}")


def main():
    part, units = sys.argv[1], int(sys.argv[2])
    if part.startswith("ProcessPoolExecutor"):
        with ProcessPoolExecutor(WORKERS) as pool:
            list(pool.map(square, range(100)))
            if part == "ProcessPoolExecutor.map":
                chunk = units // (WORKERS * 4)
                timed(lambda: list(pool.map(square, range(units), chunksize=chunk)))
            else:
                timed(lambda: [f.result() for f in [pool.submit(square, x) for x in range(units)]])
        return
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(square, range(100))
        if part == "Pool.map":
            timed(lambda: pool.map(square, range(units)))
        elif part == "Pool.map, chunksize=1":
            timed(lambda: pool.map(square, range(units), chunksize=1))
        elif part == "Pool.map, 1 ms":
            timed(lambda: pool.map(work, [1000] * units))
        elif part == "Pool.apply":
            timed(lambda: [pool.apply(square, (x,)) for x in range(units)])
        elif part == "memory":
            memory(pool)
        else:
            sys.exit(f"there is no part {part}")


if __name__ == "__main__":
    main()
