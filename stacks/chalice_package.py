"""
Package one Chalice project: run as a program, in a process of its own, by `stacks.bundle`.

    python -S chalice_package.py PROJECT OUT STAGE

Chalice imports the function to learn its routes and triggers. That must neither leak state into the
caller nor find anything that the function will not have on Lambda, so this file imports nothing of ours
and runs without the caller's site hooks.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chalice.app import Chalice
from chalice.cli.factory import CLIFactory


class ProjectFactory(CLIFactory):
    """Chalice's own wiring, with the configuration at the project's root instead of under `.chalice`."""

    def load_project_config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((Path(self.project_dir) / "chalice.json").read_text())
        return config


def package(project: Path, out: Path, stage: str) -> None:
    """
    Write Chalice's template to *out*/sam.json.

    Raises:
        LookupError: a handler would be deployed under a name that the shim does not have.
    """
    factory = ProjectFactory(str(project))
    config = factory.create_config_obj(stage)
    refuse_lost_handlers(config.chalice_app)
    options = factory.create_package_options()
    factory.create_app_packager(config, options, "cloudformation", "json").package_app(config, str(out), stage)


def refuse_lost_handlers(app: Chalice) -> None:
    """
    Check that Lambda will find every handler where Chalice says it is: as an attribute of the module `app`.

    That module is the shim, and its `import *` leaves out what `__all__` does not name and what begins with an
    underscore. Such a function deploys, and then fails at its first event.
    """
    shim = sys.modules["app"]
    lost = sorted({name for name in handler_names(app) if not hasattr(shim, name)})
    if lost:
        raise LookupError(
            f"`from app import *` leaves out {', '.join(lost)}: a handler's name may not begin with an underscore, "
            "and has to be in __all__ if there is one."
        )


def handler_names(app: Chalice) -> Iterator[str]:
    """List the names after `app.` of every trigger, authorizer, WebSocket and plain Lambda handler of *app*."""
    configs: list[Any] = [*app.pure_lambda_functions, *app.event_sources, *app.builtin_auth_handlers]
    configs += app.websocket_handlers.values()
    for config in configs:
        yield config.handler_string.removeprefix("app.")


if __name__ == "__main__":
    package(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
