"""Sends bytes through a pipe of Python's: there-and-back|one-way LENGTH CORE,CORE MESSAGES."""

import multiprocessing
import os
import sys
import time

from rounds import serve


def far(connection, start, core, back, messages):
    os.sched_setaffinity(0, [core])
    start.wait()
    for _ in range(messages):
        message = connection.recv_bytes()
        if back:
            connection.send_bytes(message)
    connection.send_bytes(str(time.process_time_ns()).encode())


def main():
    back, length, messages = sys.argv[1] == "there-and-back", int(sys.argv[2]), int(sys.argv[4])
    cores = [int(core) for core in sys.argv[3].split(",")]
    context = multiprocessing.get_context("fork")
    (here, there), start = context.Pipe(), context.Barrier(2)
    peer = context.Process(target=far, args=(there, start, cores[1], back, messages))
    peer.start()
    os.sched_setaffinity(0, [cores[0]])
    payload = b"\x07" * length
    start.wait()
    begin, used = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(messages):
        here.send_bytes(payload)
        if back:
            assert len(here.recv_bytes()) == length
    cpu = int(here.recv_bytes())
    wall, used = time.perf_counter_ns() - begin, time.process_time_ns() - used
    peer.join()
    return wall, cpu + used


serve(main)
