"""The offline verifier, as `audit_verify` measures it alone."""

from typing import Final

from tests.bench import audit_verify
from tests.bench.audit.figures import Figure, Sizes

EVENTS_A_SECOND: Final = 50_000


def measure(sizes: Sizes) -> list[Figure]:
    shapes = {name: (commits, events) for name, commits, events in sizes.verified_shapes}
    found = audit_verify.run(shapes, sizes.repeats)
    return [
        Figure(
            name=f"verify offline, {name}",
            value=found[f"events_per_second_{name.replace(' ', '_')}"],
            unit="events/s per core",
            repeats=sizes.repeats,
            size=f"{commits * events} events",
            target=EVENTS_A_SECOND,
            more={key: value for key, value in found.items() if not key.startswith("events_per_second")}
            if events > 1
            else {},
        )
        for name, (commits, events) in shapes.items()
    ]
