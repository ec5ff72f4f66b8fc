"""
The two layers: the kernel, and the locked third-party packages.

A layer is named by what is in it. Its identity is a hash of its sources (for the packages: of the lock
files, the wheel platform and the trimming below), never of the zip's own bytes, so any machine gives
the same name to the same content, and what is named already is not built again.
"""

import hashlib
import importlib.util
import io
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from stacks import ROOT, BuildFailed

PIP_TIMEOUT_SECONDS = 300.0
MESSAGE_CHARACTERS_MAX = 2_000
UNZIPPED_BYTES_MAX = 128 * 1024 * 1024
"""Half of Lambda's limit (250 MB for a function with all its layers), so that a function has the other half."""

CACHED_MAX = 8
"""Builds of one kind that are kept on this machine: enough to go back and forth between branches."""

LOCKS = ("requirements.txt", "chalice.txt")
"""In layers/dependencies. Both are installed without resolving anything: every package is in them, with its hash."""

BOTOCORE_SERVICES = frozenset(
    """
    apigatewaymanagementapi appconfig appconfigdata cloudformation cloudwatch dynamodb dynamodbstreams
    events kms lambda logs s3 scheduler secretsmanager sns sqs ssm sts
    """.split()  # noqa: SIM905 - words, a line at a time
)
"""
The AWS services that a function may have a client of.

botocore carries a description of all of AWS, four fifths of this layer. Making a client of another service
fails at once with UnknownServiceError, and is cured by its name here.
"""

NEVER_IMPORTED = frozenset(
    # Chalice's command line and deployer (functions run chalice/__init__.py and chalice/app.py), boto3's manual,
    # console scripts, and the parser that only builds C extensions.
    """
    bin boto3/examples chalice/api chalice/cdk chalice/cli chalice/deploy chalice/templates chalice/vendored
    chalice/analyzer.py chalice/awsclient.py chalice/config.py chalice/invoke.py chalice/local.py chalice/logs.py
    chalice/package.py chalice/pipeline.py chalice/policies.json chalice/policies-extra.json chalice/policy.py
    chalice/test.py chalice/utils.py chalice/constants.py pycparser
    """.split()  # noqa: SIM905 - words, a line at a time
)
NEVER_READ_SUFFIXES = (".pyc", ".pyi", ".pyx", ".c", ".h", ".typed")
DISTRIBUTION_FILES_KEPT = ("METADATA", "entry_points.txt")
"""What importlib.metadata answers from: some packages ask for their own version or plug-ins when imported."""

EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold: a file's own would make every build a new one."""
FILE_MODE = 0o100644


class Platform(Enum):
    """Whose wheels the packages are taken from."""

    LOCAL = "local"
    AWS = "aws"

    @property
    def pip_options(self) -> tuple[str, ...]:
        if self is Platform.LOCAL:
            return ()
        return ("--platform", "manylinux2014_x86_64", "--implementation", "cp", "--only-binary", ":all:")


@dataclass(frozen=True)
class Archive:
    """A zip on this machine, known by the hash of what is in it."""

    name: str
    digest: str
    path: Path

    @property
    def key(self) -> str:
        """Where it lies in the artifact bucket: a key is written once and never means anything else."""
        return f"{self.name}/{self.digest}.zip"


def kernel(home: Path, root: Path = ROOT) -> Archive:
    """Build the layer of `import holdfast`."""
    source = root / "layers" / "holdfast" / "python"
    return archive(home, "kernel", {f"python/{path}": (source / path).read_bytes() for path in sources(source)})


def dependencies(home: Path, platform: Platform, root: Path = ROOT) -> Archive:
    """
    Build the layer of the third-party packages for one wheel platform.

    The packages are compiled in advance, since a function's file system is read-only and would have to
    compile them at every cold start.

    Raises:
        BuildFailed: a package could not be fetched, its hash is another, or the layer has grown too large.
    """
    locks = [root / "layers" / "dependencies" / name for name in LOCKS]
    digest = _dependencies_digest(locks, platform)
    built = Archive("dependencies", digest, home / "build" / f"dependencies-{digest}.zip")
    if not is_cached(built.path):
        with tempfile.TemporaryDirectory(prefix="holdfast-layer-") as directory:
            target = Path(directory)
            _install(target, locks, platform)
            _trim(target)
            _write(built.path, dict(_compiled(target)))
    return built


def archive(home: Path, name: str, files: Mapping[str, bytes]) -> Archive:
    """Zip *files* unless the same files have been zipped before."""
    digest = digest_of(files)
    built = Archive(name, digest, home / "build" / f"{name.replace('/', '-')}-{digest}.zip")
    if not is_cached(built.path):
        _write(built.path, files)
    return built


def digest_of(files: Mapping[str, bytes]) -> str:
    """Hash names and contents, each under its length, so that no two sets of files look alike."""
    sha = hashlib.sha256()
    for name, content in sorted(files.items()):
        sha.update(f"{len(name)}:{name}{len(content)}:".encode())
        sha.update(content)
    return sha.hexdigest()[:32]


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Zip *files* so that the same files give the same bytes on the same machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, EPOCH_OF_ZIP)
            info.external_attr = FILE_MODE << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive_file.writestr(info, content)
    return buffer.getvalue()


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip into the cache, where its name is believed for ever."""
    size = sum(len(content) for content in files.values())
    if size > UNZIPPED_BYTES_MAX:
        raise BuildFailed(
            f"{path.stem} is {size:,} bytes unzipped, and {UNZIPPED_BYTES_MAX:,} is the most it may be.",
            "Trim it in stacks/layers.py, or move what only one service needs into that service.",
        )
    write_cached(path, zipped(files))


def is_cached(path: Path) -> bool:
    """Say whether a build is there; what is asked for counts as new, so that what is in use is not forgotten."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def write_cached(path: Path, content: bytes) -> None:
    """
    Write a file whole or not at all, and forget the oldest of its kind.

    Its name ends in `-<digest>`: what stands before that is its kind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
    kind, _, digest = path.stem.rpartition("-")
    alike = sorted(path.parent.glob(f"{kind}-{'?' * len(digest)}{path.suffix}"), key=lambda each: each.stat().st_mtime)
    for oldest in alike[:-CACHED_MAX]:
        oldest.unlink(missing_ok=True)


def sources(directory: Path) -> Iterator[str]:
    """List the files of a Python source tree, without what running it leaves behind."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts:
            yield path.relative_to(directory).as_posix()


def _dependencies_digest(locks: list[Path], platform: Platform) -> str:
    """
    Hash what decides the content: the lock files, the platform and this module, which says what is trimmed.

    For this machine's own wheels the platform is the machine's; for AWS it is Lambda's, wherever it is built.
    """
    wheels = platform.pip_options or (sys.implementation.name, sys.platform, os.uname().machine)
    sha = hashlib.sha256("\n".join((*wheels, python_version())).encode())
    for path in (*locks, Path(__file__)):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:32]


def python_version() -> str:
    """Name the Python that packages are built for: this one, as Chalice's runtime in the template is too."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _install(target: Path, locks: list[Path], platform: Platform) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--target", str(target), "--require-hashes", "--no-deps", "--no-compile"]
    command += [*platform.pip_options, *(("--python-version", python_version()) if platform.pip_options else ())]
    for lock in locks:
        command += ["-r", str(lock)]
    next_step = "Check the network and pip's index (pip config list), then repeat the command."
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own files
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(
            f"The dependency layer's packages were not fetched within {PIP_TIMEOUT_SECONDS:.0f} s.", next_step
        ) from error
    if done.returncode != 0:
        said = done.stderr[-MESSAGE_CHARACTERS_MAX:].strip()
        raise BuildFailed(f"The dependency layer's packages could not be fetched. pip says:\n{said}", next_step)


def _trim(target: Path) -> None:
    """Remove what no function ever imports or reads."""
    for name in NEVER_IMPORTED:
        path = target / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for service in (target / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in BOTOCORE_SERVICES:
            shutil.rmtree(service)
    for path in list(target.rglob("*")):
        in_distribution = path.parent.suffix == ".dist-info" or "licenses" in path.parts
        if path.is_file() and (
            path.suffix in NEVER_READ_SUFFIXES or (in_distribution and path.name not in DISTRIBUTION_FILES_KEPT)
        ):
            path.unlink()


def _compiled(target: Path) -> Iterator[tuple[str, bytes]]:
    """
    Give every file, and beside each module its compiled form.

    "Unchecked hash" files (PEP 552) hold no times and are used as they are, and the names in tracebacks are
    those on Lambda: so the layer is the same whenever it is built.
    """
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        name = path.relative_to(target).as_posix()
        yield f"python/{name}", path.read_bytes()
        if path.suffix == ".py":
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            compiled = Path(importlib.util.cache_from_source(str(path)))
            py_compile.compile(str(path), str(compiled), f"/opt/python/{name}", doraise=True, invalidation_mode=mode)
            yield f"python/{compiled.relative_to(target).as_posix()}", compiled.read_bytes()
