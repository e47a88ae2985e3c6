"""What the scripts share."""

import sys


def serve(act):
    """For each line that comes, does it and prints the numbers that it returns."""
    for _ in sys.stdin:
        print(*act(), flush=True)
