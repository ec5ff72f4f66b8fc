"""All groups of the bench, one after the other, and what they come to."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tests.bench.audit import (
    appends,
    chart,
    costs,
    reading,
    rebuilds,
    searches,
    served,
    states,
    verifying,
    viewed,
)
from tests.bench.audit.engine import engine
from tests.bench.audit.figures import FULL, SMALL, Figure, Sizes, Wrong, as_json, tell

SIZES: Final[Mapping[bool, Sizes]] = {False: FULL, True: SMALL}


def run(*, small: bool = False) -> dict[str, Any]:
    """
    Measure everything; *small* tells whether the bench works, and nothing else.

    An answer that is wrong ends the process with its reason.
    """
    sizes, started = SIZES[small], time.perf_counter()
    try:
        figures, points = _measured(sizes)
    except Wrong as error:
        sys.exit(f"The bench ends: {error}")
    return {
        "sizes": msgspec.to_builtins(sizes),
        "is_small": small,
        "seconds": round(time.perf_counter() - started),
        "figures": [as_json(figure) for figure in figures],
        "targets": {
            "met": [figure.name for figure in figures if figure.is_met],
            "missed": [figure.name for figure in figures if figure.is_met is False],
        },
        "state_by_length_of_history_ms": msgspec.to_builtins(points),
        "costs": costs.figures(),
    }


def _measured(sizes: Sizes) -> tuple[list[Figure], list[states.Point]]:
    """Measure group by group; the deployed service comes last, since it goes on working at what it was given."""
    figures: list[Figure] = []

    def add(group: Iterable[Figure]) -> None:
        for figure in group:
            figures.append(figure)
            tell(f"  {figure.name}: {figure.value:g} {figure.unit}")

    with engine() as place:
        tell("appending and reading")
        add(appends.measure(place, sizes))
        add(reading.measure(place, sizes))
    tell("verifying offline")
    add(verifying.measure(sizes))
    with engine() as place:
        tell("past states")
        of_states, points = states.measure(place, sizes)
        add(of_states)
    with engine() as place:
        tell("searching and rebuilding")
        grown = viewed.grow(place, sizes.view_events)
        add(searches.measure(grown, sizes))
        add(rebuilds.measure(grown))
    with engine() as place:
        tell("the service over HTTP")
        add(served.measure(place, sizes))
    return figures, points


def picture(result: Mapping[str, Any]) -> str:
    """Draw what a run came to, as the runner writes it down."""
    measured_on, results = result["measured_on"], result["results"]
    machine = " · ".join(f"{name} {measured_on[name]}" for name in ("commit", "cores", "machine", "python", "system"))
    points = msgspec.convert(results["state_by_length_of_history_ms"], list[states.Point])
    figures = msgspec.convert([_without_result(each) for each in results["figures"]], list[Figure])
    return chart.drawn(points, figures, machine)


def _without_result(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figure.items() if name != "is_met"}
