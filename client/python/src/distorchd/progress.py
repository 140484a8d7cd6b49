"""Progress to a callback, or to a bar."""

from __future__ import annotations

from typing import Any, Callable, Union

from distorchd.results import Progress

ProgressCallback = Callable[[Progress], Any]
ProgressArgument = Union[ProgressCallback, bool, None]
"""A function that is called with each Progress (asyncio: it may be a coroutine function), or True for a tqdm bar. An
exception that it raises ends the call and is raised there."""


class Bar:
    """A tqdm bar for each phase that counts something."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm

        self._tqdm = tqdm
        self._bar: Any = None
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        if progress.total == 0:
            return
        if self._bar is None or self._phase != progress.phase:
            self.close()
            self._phase = progress.phase
            in_bytes = progress.total > 1_000_000
            self._bar = self._tqdm(total=progress.total, desc=progress.phase, unit="B" if in_bytes else "it",
                                   unit_scale=in_bytes)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def reporter(progress: ProgressArgument) -> tuple[ProgressCallback | None, Callable[[], None]]:
    """What to call with each Progress, and what to call in the end."""
    if progress is True:
        bar = Bar()
        return bar, bar.close
    return progress or None, lambda: None
