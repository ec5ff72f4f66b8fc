"""
A service becomes a Chalice project, and the project a zip and a template.

    app.py                        from functions.<service>.app import *
    vendor/functions/<service>/   the service as it stands in the repository
    chalice.json                  the shared configuration, under the service's own name

The zip holds one service and nothing else: the kernel, Chalice's runtime and the packages are layers. What
Chalice puts in beside them is left out, and the zip is the same for the same files.

The runtime in the template is the version of the interpreter that packages (Chalice takes no other): the
packages are compiled and their wheels chosen for it, and the tests have run on it.
"""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacks import ROOT, BuildFailed, layers
from stacks.layers import Archive

STAGE = "live"
"""The one Chalice stage in chalice.json, and the API's stage."""
FUNCTION = "AWS::Serverless::Function"
PACKAGE_TIMEOUT_SECONDS = 60.0
MESSAGE_CHARACTERS_MAX = 2_000
PACKAGER = Path(__file__).with_name("chalice_package.py")
SHIM = "from functions.{service}.app import *\n"
ENTRIES = ("app.py", "app/__init__.py")
"""Where a service declares its routes and triggers: in a module, or in a package that has outgrown one."""


@dataclass(frozen=True)
class Bundle:
    """One service, ready to be uploaded and merged."""

    service: str
    code: Archive
    template: dict[str, Any]
    """As Chalice made it: SAM, with every trigger that is declared beside a function."""

    @property
    def functions(self) -> tuple[str, ...]:
        """List the logical ids of its functions."""
        return tuple(name for name, each in self.template["Resources"].items() if each["Type"] == FUNCTION)


def bundle(service: str, home: Path, root: Path = ROOT) -> Bundle:
    """
    Bundle `functions/<service>`.

    Raises:
        BuildFailed: there is no such service, Chalice cannot import it, or a handler would be lost.
    """
    files = _service_files(service, root)
    code = layers.archive(home, f"functions/{service}", files)
    return Bundle(service, code, _template(service, files, home, root))


def _service_files(service: str, root: Path) -> dict[str, bytes]:
    """Read what the function's zip holds, by the names it has there."""
    source = root / "functions" / service
    if not any((source / entry).exists() for entry in ENTRIES):
        raise BuildFailed(
            f"There is no functions/{service}/app.py, nor a package of that name.",
            "Look at stacks/services.py for the services that exist.",
        )
    files = {f"functions/{service}/{name}": (source / name).read_bytes() for name in layers.sources(source)}
    package = root / "functions" / "__init__.py"
    if package.exists():
        files["functions/__init__.py"] = package.read_bytes()
    files["app.py"] = SHIM.format(service=service).encode()
    return files


def _template(service: str, files: dict[str, bytes], home: Path, root: Path) -> dict[str, Any]:
    """
    Have Chalice make the template, unless it has made it from the same sources before.

    Beside the service, it depends on the kernel (which declares routes) and on the versions of what is locked.
    """
    config = _config(service, root)
    inputs = hashlib.sha256(layers.digest_of(files).encode())
    inputs.update(json.dumps(config, sort_keys=True).encode() + layers.python_version().encode())
    inputs.update(layers.kernel(home, root).digest.encode())
    for path in (PACKAGER, *(root / "layers" / "dependencies" / lock for lock in layers.LOCKS)):
        inputs.update(path.read_bytes())
    cached = home / "build" / f"template-{service}-{inputs.hexdigest()[:32]}.json"
    if not layers.is_cached(cached):
        with tempfile.TemporaryDirectory(prefix="holdfast-bundle-") as directory:
            sam = _package(service, files, config, Path(directory), root)
        layers.write_cached(cached, sam)
    template: dict[str, Any] = json.loads(cached.read_bytes())
    return template


def _config(service: str, root: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((root / "chalice.json").read_text())
    return {**config, "app_name": f"holdfast-{service}"}


def _package(service: str, files: dict[str, bytes], config: dict[str, Any], directory: Path, root: Path) -> bytes:
    """Lay the project out and run Chalice on it, in a process that has what Lambda will have and nothing else."""
    project, out = directory / "project", directory / "out"
    for name, content in files.items():
        path = project / (name if name == "app.py" else f"vendor/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (project / "chalice.json").write_text(json.dumps(config))
    command = [sys.executable, "-S", str(PACKAGER), str(project), str(out), STAGE]
    next_step = f"Correct functions/{service} (python -c 'import functions.{service}.app' shows more), then repeat."
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own file
            command,
            env=_environment(root),
            capture_output=True,
            text=True,
            timeout=PACKAGE_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(
            f"Chalice did not package {service} within {PACKAGE_TIMEOUT_SECONDS:.0f} s.", next_step
        ) from error
    if done.returncode != 0:
        said = done.stderr[-MESSAGE_CHARACTERS_MAX:].strip()
        raise BuildFailed(f"Chalice cannot package {service}:\n{said}", next_step)
    return (out / "sam.json").read_bytes()


def _environment(root: Path) -> dict[str, str]:
    """
    Give the packaging process installed packages and the kernel, and no way to AWS.

    `-S` keeps out the repository's root, which a .pth file puts on this environment's path and where every other
    service could be found. The credentials open nothing: an import that calls AWS fails here, not in production.
    """
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join([str(root / "layers" / "holdfast" / "python"), *sorted(installed)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
