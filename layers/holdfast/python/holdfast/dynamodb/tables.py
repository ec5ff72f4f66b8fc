"""The tables of a service that keeps streams: four of one shape everywhere, and those that its companions name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

ROLES: Final = ("commits", "operations", "log", "views")


@dataclass(frozen=True)
class Tables:
    """
    The tables behind the roles.

    `commits` and `operations` are sorted by a number, `log` and `views` by text (`attributes.ordered` writes numbers
    into it). *companions* are further tables, by the role under which a companion names them.
    """

    commits: str
    operations: str
    log: str = ""
    views: str = ""
    companions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, companions: Mapping[str, str] | None = None) -> "Tables":
        """Take the names that the stack's template gives every function."""
        names = {role: os.environ[f"HOLDFAST_{role.upper()}_TABLE"] for role in ROLES}
        return cls(**names, companions=companions or {})

    def of_role(self, role: str) -> str:
        return self.companions[role]


def stream_key(tenant: str, stream: str) -> str:
    """Name the partition of `commits` in which a stream lies."""
    return f"S#{tenant}#{stream}"
