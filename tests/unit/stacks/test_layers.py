import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import stacks
from stacks import ROOT, BuildFailed, layers
from stacks.layers import Platform

LAMBDA_UNZIPPED_BYTES_MAX = 250 * 1024 * 1024


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def dependencies() -> Path:
    """Take what `./holdfast up` builds too: it is kept by the hash of its sources, and fetching it takes a while."""
    return layers.dependencies(stacks.home(), Platform.LOCAL).path


@pytest.fixture(scope="module")
def unpacked(home: Path, dependencies: Path) -> Path:
    target = home / "opt"
    for archive in (dependencies, layers.kernel(home).path):
        zipfile.ZipFile(archive).extractall(target)
    return target / "python"


def run_on_lambda(unpacked: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run with the layers and the standard library, and nothing that is installed here."""
    return subprocess.run(
        [sys.executable, "-S", "-B", "-c", code],
        env={"PYTHONPATH": str(unpacked), "AWS_DEFAULT_REGION": "us-east-1", "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_same_files_give_the_same_bytes_whatever_their_order_and_age():
    files = {"b.py": b"2", "a.py": b"1"}

    assert layers.zipped(files) == layers.zipped(dict(reversed(files.items())))
    assert layers.digest_of(files) == layers.digest_of(dict(reversed(files.items())))


def test_files_that_run_together_alike_have_different_digests():
    assert layers.digest_of({"ab": b"c"}) != layers.digest_of({"a": b"bc"})
    assert layers.digest_of({"a": b"1", "b": b""}) != layers.digest_of({"a": b"", "b": b"1"})


def test_what_is_built_is_not_built_again(home: Path):
    first = layers.archive(home, "functions/x", {"app.py": b"1"})
    first.path.write_bytes(b"marked")

    assert layers.archive(home, "functions/x", {"app.py": b"1"}).path.read_bytes() == b"marked"
    assert layers.archive(home, "functions/x", {"app.py": b"2"}).path != first.path


def test_a_key_is_the_name_of_the_content(home: Path):
    built = layers.archive(home, "functions/x", {"app.py": b"3"})

    assert built.key == f"functions/x/{built.digest}.zip"
    assert built.digest == layers.digest_of({"app.py": b"3"})


def test_the_kernel_layer_holds_the_kernel_and_nothing_that_running_it_left_behind(home: Path):
    names = zipfile.ZipFile(layers.kernel(home).path).namelist()

    assert "python/holdfast/errors.py" in names
    assert all(name.startswith("python/holdfast/") for name in names)
    assert not [name for name in names if "__pycache__" in name]


def test_only_the_newest_builds_of_a_kind_are_kept(home: Path):
    other = layers.archive(home, "functions/many-more", {"app.py": b"0"})
    built = [layers.archive(home, "functions/many", {"app.py": str(n).encode()}) for n in range(layers.CACHED_MAX + 2)]

    assert [each.path.exists() for each in built] == [False] * 2 + [True] * layers.CACHED_MAX
    assert other.path.exists(), "another kind, though its name begins alike"


def test_the_packages_for_aws_are_lambdas_wheels():
    names = zipfile.ZipFile(layers.dependencies(stacks.home(), Platform.AWS).path).namelist()

    compiled = [name for name in names if name.endswith(".so")]
    assert any("msgspec" in name for name in compiled)
    assert all("x86_64-linux-gnu" in name or name.endswith(".abi3.so") for name in compiled)


def test_too_large_a_layer_is_refused_before_anything_is_written(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layers, "UNZIPPED_BYTES_MAX", 3)

    with pytest.raises(BuildFailed, match="4 bytes unzipped"):
        layers.archive(home, "large", {"a": b"1234"})

    assert not list((home / "build").glob("large*"))


def test_the_dependency_layer_leaves_most_of_lambdas_size_to_the_function(dependencies: Path):
    unzipped_bytes = sum(info.file_size for info in zipfile.ZipFile(dependencies).infolist())

    assert unzipped_bytes < LAMBDA_UNZIPPED_BYTES_MAX / 5


def test_everything_that_a_function_imports_is_in_the_layers(unpacked: Path):
    done = run_on_lambda(
        unpacked,
        "import chalice, boto3, msgspec, jwt, tenacity, holdfast.http\n"
        "from aws_lambda_powertools import Logger, Metrics, Tracer\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "ec.generate_private_key(ec.SECP256R1())\n",
    )

    assert done.returncode == 0, done.stderr


def test_every_aws_service_that_is_kept_has_a_working_client(unpacked: Path):
    names = sorted(layers.BOTOCORE_SERVICES)

    done = run_on_lambda(unpacked, f"import boto3\nfor name in {names}: boto3.client(name)")

    assert done.returncode == 0, done.stderr


def test_an_aws_service_that_is_left_out_fails_by_name(unpacked: Path):
    done = run_on_lambda(unpacked, "import boto3; boto3.client('ec2')")

    assert "UnknownServiceError" in done.stderr


def test_every_module_comes_compiled_and_lambda_uses_what_comes(unpacked: Path):
    module = unpacked / "msgspec" / "__init__.py"
    compiled = Path(importlib.util.cache_from_source(str(module)))
    flags = int.from_bytes(compiled.read_bytes()[4:8], "little")

    # PEP 552: bit 0 a hash and no time, bit 1 whether Python compares it with the source.
    assert flags == 0b01


def test_an_unpacked_layer_has_no_trace_of_where_it_was_built(unpacked: Path):
    module = unpacked / "msgspec" / "__init__.py"
    compiled = Path(importlib.util.cache_from_source(str(module)))

    assert b"/opt/python/msgspec/__init__.py" in compiled.read_bytes()


def test_the_identity_of_the_dependencies_is_their_locks_and_their_platform():
    locks = [ROOT / "layers" / "dependencies" / name for name in layers.LOCKS]

    local, aws = (layers._dependencies_digest(locks, platform) for platform in Platform)

    assert local != aws
    assert layers._dependencies_digest(locks[:1], Platform.LOCAL) != local


def test_a_package_with_another_hash_is_refused(tmp_path: Path):
    root = tmp_path / "root" / "layers" / "dependencies"
    root.mkdir(parents=True)
    (root / "requirements.txt").write_text("six==1.17.0 --hash=sha256:" + "0" * 64 + "\n")
    (root / "chalice.txt").write_text("")

    with pytest.raises(BuildFailed, match=r"(?s)could not be fetched.*HASH"):
        layers.dependencies(tmp_path, Platform.LOCAL, tmp_path / "root")
