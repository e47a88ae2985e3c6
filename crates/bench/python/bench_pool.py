"""Runs tasks on pools of two workers: POOL PART [CHUNK] UNITS.

The times are without those of starting and ending the pool. Part `memory` prints the bytes that each
worker has for itself.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rounds import serve

WORKERS = 2


def square(x):
    return x * x


def work(micros):
    end = time.perf_counter() + micros / 1e6
    while time.perf_counter() < end:
        pass
    return micros


def blur(path):
    import io

    from PIL import Image, ImageFilter

    with Image.open(path) as image:
        blurred = image.convert("RGB").filter(ImageFilter.GaussianBlur(10))
    blurred.save(io.BytesIO(), "JPEG", quality=75)
    return path


class Standard:
    def __init__(self, method=None):
        self.pool = multiprocessing.get_context(method).Pool(WORKERS)
        self.apply = lambda function, x: self.pool.apply(function, (x,))

    def map(self, function, items, chunk):
        return self.pool.map(function, items, chunksize=chunk)

    def submit(self, function, items):
        return [later.get() for later in [self.pool.apply_async(function, (x,)) for x in items]]

    def end(self):
        self.pool.terminate()


class Spawned(Standard):
    def __init__(self):
        super().__init__("spawn")


class Executor:
    def __init__(self):
        self.pool = ProcessPoolExecutor(WORKERS)
        self.apply = lambda function, x: self.pool.submit(function, x).result()

    def map(self, function, items, chunk):
        chunk = chunk or -(-len(items) // (WORKERS * 4))
        return list(self.pool.map(function, items, chunksize=chunk))

    def submit(self, function, items):
        return [later.result() for later in [self.pool.submit(function, x) for x in items]]

    def end(self):
        self.pool.shutdown()


class Loky(Executor):
    def __init__(self):
        import loky

        self.pool = loky.get_reusable_executor(max_workers=WORKERS, timeout=600)
        self.apply = lambda function, x: self.pool.submit(function, x).result()


class Mpire:
    def __init__(self):
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=WORKERS, keep_alive=True)
        self.apply = self.pool.apply

    def map(self, function, items, chunk):
        return self.pool.map(function, items, chunk_size=chunk)

    def submit(self, function, items):
        return [later.get() for later in [self.pool.apply_async(function, x) for x in items]]

    def end(self):
        self.pool.terminate()


def read_tasks(pid, name):
    """The text of a file of each thread of a process; of those that end meanwhile, nothing."""
    texts = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            texts.append((task / name).read_text())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return texts


def descendants(pid):
    children = [int(child) for text in read_tasks(pid, "children") for child in text.split()]
    return children + [pid for child in children for pid in descendants(child)]


def used():
    """Nanoseconds that all workers and this process have used of processors."""
    pids = [os.getpid(), *descendants(os.getpid())]
    return sum(int(text.split()[0]) for pid in pids for text in read_tasks(pid, "schedstat"))


def is_tracker(pid):
    return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def private_memory(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def main():
    kind, part, units = sys.argv[1], sys.argv[2], int(sys.argv[-1])
    pool = globals()[kind]()
    chunk = int(sys.argv[3]) if len(sys.argv) > 4 else None
    assert pool.map(square, range(1000), 1) == [x * x for x in range(1000)]
    serve(lambda: memory() if part == "memory" else timed(pool, part, chunk, units))
    pool.end()


def memory():
    return [private_memory(pid) for pid in descendants(os.getpid()) if not is_tracker(pid)]


def timed(pool, part, chunk, units):
    before, begin = used(), time.perf_counter_ns()
    if part == "map":
        assert pool.map(square, range(units), chunk)[-1] == (units - 1) ** 2
    elif part == "submit":
        assert pool.submit(square, range(units))[-1] == (units - 1) ** 2
    elif part == "1ms":
        assert len(pool.map(work, [1000] * units, chunk)) == units
    elif part == "apply":
        assert all(pool.apply(square, x) == x * x for x in range(units))
    elif part == "blur":
        photos = sorted(Path(__file__).parents[3].glob("examples/photos/*.jpg"))
        for _ in range(units):
            assert pool.map(blur, photos, 1) == photos
    else:
        sys.exit(f"there is no part {part}")
    return time.perf_counter_ns() - begin, used() - before


if __name__ == "__main__":
    main()
