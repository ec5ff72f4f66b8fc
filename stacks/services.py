"""The services that exist: what is not in this table is neither built, deployed nor listed."""

import msgspec

ARTIFACTS_STACK = "holdfast-artifacts"
BASE_STACK = "holdfast-base"
"""What all services stand on; the stack of a service is named `holdfast-<service>`."""


class Service(msgspec.Struct, frozen=True):
    """One service: its name everywhere, its promise in a line, and the scopes that its routes ask for."""

    name: str
    promise: str
    scopes: tuple[str, ...]


SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        Service(
            name="audit",
            promise="Every change is an event that is kept for ever, and any past state comes back.",
            scopes=(
                "audit:append",
                "audit:read",
                "audit:act-as",
                "audit:search",
                "audit:verify",
                "audit:rebuild",
                "audit:erase",
                "audit:subscribe",
                "audit:admin",
            ),
        ),
    )
}


def all_scopes() -> tuple[str, ...]:
    """List every scope of every service: what the local token carries."""
    return tuple(scope for service in SERVICES.values() for scope in service.scopes)
