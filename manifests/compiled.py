"""Loops that numba compiles once a process has so much for them to do that a compiler pays."""

from collections.abc import Callable
from typing import Generic, ParamSpec

A = ParamSpec("A")


class Loop(Generic[A]):
    """A function over arrays in two forms that do the same: a plain one, and one that numba compiles.

    Args:
        loop: What is compiled.
        plain: What runs until then; it may be `loop` itself.
        worth: The work that takes the plain form as long as numba takes to be imported and to load the loop.
        reorders: Whether sums may be taken in another order than `loop` says.
    """

    def __init__(
        self, loop: Callable[A, None], *, plain: Callable[A, None], worth: int, reorders: bool = False
    ) -> None:
        self.plain = plain
        self._loop, self._worth, self._reorders = loop, worth, reorders
        self._form = plain
        self._work = 0

    def form_for(self, work: int) -> Callable[A, None]:
        """The form in which to do so much more."""
        self._work += work
        if self._form is self.plain and self._work > self._worth:
            self._form = self.compiled()
        return self._form

    def compiled(self) -> Callable[A, None]:
        """The loop as machine code, kept by numba beside its file, else in the user's cache, else nowhere."""
        import numba

        fastmath = {"reassoc"} if self._reorders else False
        found: Callable[A, None]
        try:
            found = numba.njit(cache=True, nogil=True, fastmath=fastmath)(self._loop)
        except RuntimeError:  # no folder of these can be written
            found = numba.njit(nogil=True, fastmath=fastmath)(self._loop)
        return found
