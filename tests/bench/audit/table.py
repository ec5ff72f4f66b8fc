"""A run's figures as the rows of the README's table; a test compares the two, so that neither is older."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

HEAD: Final = ("| What | Measured | Beside | Ratio | Target |", "| --- | --- | --- | --- | --- |")


def rows(result: Mapping[str, Any]) -> Iterator[str]:
    """Write one row for each figure, in the order in which they were measured."""
    yield from HEAD
    for figure in result["results"]["figures"]:
        value = f"{_number(figure['value'])} {figure['unit']} ({figure['size']})"
        beside = f"{figure['peer']}: {_number(figure['peer_value'])}" if "peer" in figure else ""
        ratio = f"{_number(figure['ratio'])} x" if "ratio" in figure else ""
        yield f"| {figure['name']} | {value} | {beside} | {ratio} | {_target(figure)} |"


def _target(figure: Mapping[str, Any]) -> str:
    if "target" not in figure:
        return ""
    bound = "≤" if figure.get("at_most") else "≥"
    return f"{bound} {_number(figure['target'])}: {'met' if figure['is_met'] else '**missed**'}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
