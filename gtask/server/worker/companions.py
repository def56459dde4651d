"""The companions of a call in its worker: what comes along with the call, for its aspects. A plain call has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtask.aspects.aspect import WorkerAspect, WorkerCompanion
    from gtask.wire.messages import Preamble, Request

__all__ = ["Companions"]


class Companions(list["WorkerCompanion"]):
    """Those of the call that runs; one that is added while the call runs is left at its end, too.

    Attributes:
        of_every_call: the aspects of the worker that take part in plain calls, too.
    """

    __slots__ = ("_aspects", "of_every_call")

    def __init__(self) -> None:
        super().__init__()
        self.take(())

    def take(self, aspects: tuple[WorkerAspect, ...]) -> None:
        """These are the aspects of the worker."""
        self._aspects = aspects
        self.of_every_call = tuple(aspect for aspect in aspects if aspect.every_call)

    def heard(self, preamble: Preamble) -> None:
        """The client has said this before its next call."""
        for aspect in self._aspects:
            aspect.heard(preamble)

    def begin(self, request: Request, name: str) -> None:
        """A call of the method with this name begins: the aspects that it concerns give its companions."""
        is_plain = not request.used and (request.meta is None or not request.meta.concerns_aspects)
        for aspect in self.of_every_call if is_plain else self._aspects:
            companion = aspect.begin(request, name)
            if companion is not None:
                self.append(companion)

    def enter(self) -> None:
        """The function is about to be called."""
        for companion in self:
            companion.enter()

    def leave(self, error: BaseException | None) -> None:
        """The call is over, with this error if it has raised."""
        while self:
            self.pop().leave(error)

    def close(self) -> None:
        """The worker ends; its hooks have run."""
        for aspect in self._aspects:
            aspect.close()
