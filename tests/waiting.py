"""Waiting for what nothing announces."""

import time


def wait_until(condition, what, seconds=60):
    """Asks again and again until `condition` holds; fails with `what`, a text or what returns one, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.02)  # asked again, as nothing tells
