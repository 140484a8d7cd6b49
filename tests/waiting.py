"""Waiting for what nothing announces."""

import time


def wait_until(condition, what, seconds=60):
    """Asks again and again until `condition` returns what is true, and returns that; fails with `what`, a text or what
    returns one, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.02)  # asked again, as nothing tells
    return value
