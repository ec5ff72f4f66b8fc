"""
Bundle, deploy and run Holdfast: the same code for AWS and for the local engine.

    services    which services exist
    layers      what every function shares: the kernel, and the locked third-party packages
    bundle      one service -> a Chalice project -> its zip and its SAM template
    fragments   stacks/<service>.yaml, made whole with what it asks for
    template    Chalice's template + stacks/<service>.yaml -> what CloudFormation gets
    differences what of that the local engine cannot do
    permissions what a template allows that another does not (pure)
    changes     what a change set would do, by kind; what it puts at risk; who has to confirm it (pure)
    deploy      plan and apply, over CloudFormation; destroy: the way back
    tokens      the keys that functions verify tokens with, and the tokens
    local       the embedded AWS, and the little beside it that it does not do

Nothing here imports a function: Chalice does, in a process of its own.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository: everything that is built is read from here."""


class StackError(Exception):
    """Something could not be built or deployed: what happened and why, and the next command."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}\n{next_step}")
        self.what = what
        self.next_step = next_step


class BuildFailed(StackError):
    """A layer or a bundle could not be made; nothing was sent anywhere."""


class Refused(StackError):
    """A guard said no; nothing was changed."""


class DeployFailed(StackError):
    """CloudFormation did not do what was planned; the message holds its own reasons."""


class Outdated(DeployFailed):
    """What was planned no longer fits what is deployed: nothing of the rest was applied; plan again."""


def home() -> Path:
    """Name the directory for what is built and what runs here: `.holdfast` in the repository, or `$HOLDFAST_HOME`."""
    return Path(os.environ.get("HOLDFAST_HOME") or ROOT / ".holdfast")


class Unusable(StackError):
    """What was given cannot be used; nothing was done with it."""
