import shutil
import textwrap
import zipfile
from pathlib import Path

import pytest

from stacks import ROOT, BuildFailed, bundle
from stacks.services import SERVICES

APP = """
from chalice import Chalice
app = Chalice(app_name="x")

@app.route("/")
def index():
    return {}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one service, `echo`, beside the real kernel and the real locks."""
    root = tmp_path / "root"
    shutil.copytree(ROOT / "layers", root / "layers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "chalice.json", root)
    write(root, APP)
    return root


def write(root: Path, app: str, service: str = "echo") -> None:
    path = root / "functions" / service / "app.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(app))


def names_in(built: bundle.Bundle) -> set[str]:
    return set(zipfile.ZipFile(built.code.path).namelist())


def test_a_function_zip_holds_one_service_and_nothing_else(root: Path, tmp_path: Path):
    write(root, APP, service="other")
    (root / "functions" / "echo" / "__pycache__").mkdir()
    (root / "functions" / "echo" / "__pycache__" / "app.pyc").write_bytes(b"")

    assert names_in(bundle.bundle("echo", tmp_path, root)) == {"app.py", "functions/echo/app.py"}


def test_the_shim_hands_on_every_name_of_the_service(root: Path, tmp_path: Path):
    built = bundle.bundle("echo", tmp_path, root)

    assert zipfile.ZipFile(built.code.path).read("app.py") == b"from functions.echo.app import *\n"
    assert built.template["Resources"]["APIHandler"]["Properties"]["Handler"] == "app.app"


def test_an_unchanged_service_is_the_same_zip_and_a_changed_one_is_not(root: Path, tmp_path: Path):
    before = bundle.bundle("echo", tmp_path / "one", root).code
    again = bundle.bundle("echo", tmp_path / "two", root).code
    write(root, APP + "\n# changed\n")
    after = bundle.bundle("echo", tmp_path / "one", root).code

    assert before.path.read_bytes() == again.path.read_bytes()
    assert before.digest == again.digest != after.digest


def test_a_service_that_was_packaged_is_not_imported_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = bundle.bundle("echo", tmp_path, root).template
    monkeypatch.setattr(bundle, "PACKAGE_TIMEOUT_SECONDS", 0.0)

    assert bundle.bundle("echo", tmp_path, root).template == before


def test_a_changed_kernel_or_configuration_is_packaged_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle.bundle("echo", tmp_path, root)
    config = root / "chalice.json"
    config.write_text(config.read_text().replace("1024", "2048"))

    assert bundle.bundle("echo", tmp_path, root).template["Resources"]["APIHandler"]["Properties"]["MemorySize"] == 2048

    (root / "layers" / "holdfast" / "python" / "holdfast" / "new.py").write_text("")
    monkeypatch.setattr(bundle, "PACKAGE_TIMEOUT_SECONDS", 0.0)
    with pytest.raises(BuildFailed, match="within 0 s"):
        bundle.bundle("echo", tmp_path, root)


def test_a_trigger_on_a_table_of_the_same_template_needs_no_table_to_exist(root: Path, tmp_path: Path):
    trigger = """
    @app.on_dynamodb_record(stream_arn={"Fn::GetAtt": ["CommitsTable", "StreamArn"]}, starting_position="TRIM_HORIZON")
    def index_commits(event):
        pass
    """
    write(root, APP + textwrap.dedent(trigger))

    function = bundle.bundle("echo", tmp_path, root).template["Resources"]["IndexCommits"]

    assert function["Properties"]["Handler"] == "app.index_commits"
    [event] = function["Properties"]["Events"].values()
    assert event["Properties"]["Stream"] == {"Fn::GetAtt": ["CommitsTable", "StreamArn"]}


@pytest.mark.parametrize(
    "trigger",
    [
        "@app.lambda_function()\ndef _hidden(event, context): pass",
        "__all__ = ['app']\n@app.on_sqs_message(queue='q')\ndef _hidden(event): pass",
        "__all__ = ['app']\n@app.schedule('rate(1 hour)')\ndef _hidden(event): pass",
        "__all__ = ['app']\n@app.lambda_function(name='visible')\ndef _hidden(event, context): pass",
    ],
)
def test_a_handler_that_the_shim_leaves_out_fails_here_and_not_on_lambda(root: Path, tmp_path: Path, trigger: str):
    write(root, APP + trigger)

    with pytest.raises(BuildFailed, match="leaves out _hidden"):
        bundle.bundle("echo", tmp_path, root)


def test_a_service_that_cannot_be_imported_says_why_and_what_to_do(root: Path, tmp_path: Path):
    write(root, "import nothing_of_that_name\n")

    with pytest.raises(BuildFailed, match="No module named 'nothing_of_that_name'") as failed:
        bundle.bundle("echo", tmp_path, root)

    assert "functions/echo" in failed.value.next_step


def test_a_service_cannot_reach_another_while_it_is_packaged(root: Path, tmp_path: Path):
    write(root, APP, service="other")
    write(root, "from functions.other.app import app\n")

    with pytest.raises(BuildFailed, match=r"No module named 'functions.other'"):
        bundle.bundle("echo", tmp_path, root)


def test_packaging_reads_nothing_of_the_developers_environment(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_PROFILE", "production")
    write(
        root,
        APP + "import os\nassert 'AWS_PROFILE' not in os.environ\nassert os.environ['AWS_ACCESS_KEY_ID'] == 'none'",
    )

    bundle.bundle("echo", tmp_path, root)


def test_a_service_that_hangs_on_import_is_given_up(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bundle, "PACKAGE_TIMEOUT_SECONDS", 1.0)
    write(root, "import time; time.sleep(60)\n")

    with pytest.raises(BuildFailed, match="within 1 s"):
        bundle.bundle("echo", tmp_path, root)


def test_there_is_no_bundle_of_a_service_that_does_not_exist(root: Path, tmp_path: Path):
    with pytest.raises(BuildFailed, match=r"no functions/nowhere/app\.py"):
        bundle.bundle("nowhere", tmp_path, root)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_that_exists_bundles(service: str, tmp_path: Path):
    built = bundle.bundle(service, tmp_path)

    assert built.template["Resources"]["APIHandler"]["Type"] == "AWS::Serverless::Function"
    assert {name.split("/")[0] for name in names_in(built)} == {"app.py", "functions"}
    assert {name.split("/")[1] for name in names_in(built) if "/" in name} <= {service, "__init__.py"}
