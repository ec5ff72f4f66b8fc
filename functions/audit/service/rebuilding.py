"""Rebuilds: a read model made again beside the live one, and what becomes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import msgspec

from functions.audit import domain
from holdfast.errors import once_done
from holdfast.ids import derived
from holdfast.projections.views import Checkpoint


class Rebuild(Protocol):
    """One making of a read model, as far as its pace depends on it (`holdfast.projections.rebuilds.Rebuild`)."""

    @property
    def targets(self) -> Sequence[int]: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def finished_at(self) -> datetime | None: ...


R = TypeVar("R", bound=Rebuild)


class Rebuilds(Protocol[R]):
    """Every tenant's rebuilds (`holdfast.projections.rebuilds.Rebuilds`)."""

    def start(
        self,
        tenant: str,
        view: str,
        *,
        rebuild_id: str,
        actor: str,
        reason: str,
        known_at: datetime | None,
        auto_flip: bool,
    ) -> R: ...
    def get(self, tenant: str, rebuild_id: str) -> R: ...
    def flip(self, tenant: str, rebuild_id: str) -> R: ...
    def rollback(self, tenant: str, rebuild_id: str) -> R: ...
    def abandon(self, tenant: str, rebuild_id: str) -> R: ...
    def progress(self, rebuild: R) -> Sequence[Checkpoint]: ...


class Progress(msgspec.Struct, Generic[R], frozen=True):
    """A rebuild, how far each of its partitions has come, and how fast."""

    rebuild: R
    checkpoints: Sequence[Checkpoint]
    pace: domain.Pace


@dataclass(frozen=True)
class Rebuilding(Generic[R]):
    """One tenant's rebuilds."""

    tenant: str
    rebuilds: Rebuilds[R]
    tell: Callable[[R], None]
    """Tells others of a rebuild that is over; whoever ends it has ended it, told or not."""
    now: Callable[[], datetime]

    def start(
        self, view: str, reason: str, *, key: str, by: str, known_at: datetime | None = None, auto_flip: bool = True
    ) -> R:
        """
        Begin to make a read model again; under one idempotency key it is begun once.

        Raises:
            NotFound: `view_not_found`.
            Invalid: 422 `idempotency_mismatch`.
            Conflict: `rebuild_running`.
        """
        return self.rebuilds.start(
            self.tenant,
            view,
            rebuild_id=derived("rebuild", self.tenant, key),
            actor=by,
            reason=reason,
            known_at=known_at,
            auto_flip=auto_flip,
        )

    def progress(self, rebuild_id: str) -> Progress[R]:
        """
        Say how far a rebuild has come.

        Raises:
            NotFound: `rebuild_not_found`.
        """
        return self._progress(self.rebuilds.get(self.tenant, rebuild_id))

    def flip(self, rebuild_id: str) -> Progress[R]:
        """
        Make what was rebuilt the live generation.

        Raises:
            NotFound: `rebuild_not_found`.
            Conflict: `rebuild_not_ready`.
        """
        return self._told(self.rebuilds.flip(self.tenant, rebuild_id))

    def rollback(self, rebuild_id: str) -> Progress[R]:
        """
        Make the generation before the live one again.

        Raises:
            NotFound: `rebuild_not_found`.
            Conflict: `rebuild_not_live`.
        """
        return self._told(self.rebuilds.rollback(self.tenant, rebuild_id))

    def abandon(self, rebuild_id: str) -> Progress[R]:
        """
        Give a rebuild up.

        Raises:
            NotFound: `rebuild_not_found`.
            Conflict: `rebuild_over`.
        """
        return self._told(self.rebuilds.abandon(self.tenant, rebuild_id))

    def _told(self, rebuild: R) -> Progress[R]:
        self.tell(rebuild)
        with once_done():
            return self._progress(rebuild)

    def _progress(self, rebuild: R) -> Progress[R]:
        checkpoints = self.rebuilds.progress(rebuild)
        pace = domain.pace_of(
            [checkpoint.position for checkpoint in checkpoints],
            rebuild.targets,
            started_at=rebuild.started_at,
            finished_at=rebuild.finished_at,
            now=self.now(),
        )
        return Progress(rebuild, checkpoints, pace)
