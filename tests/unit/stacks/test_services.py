from pathlib import Path

from stacks import ROOT
from stacks.bundle import ENTRIES
from stacks.services import SERVICES, all_scopes


def test_every_service_that_is_listed_has_its_function_and_its_stack():
    for name in SERVICES:
        assert any((ROOT / "functions" / name / entry).exists() for entry in ENTRIES)
        assert (ROOT / "stacks" / f"{name}.yaml").exists()


def test_every_function_is_listed():
    folders = Path(ROOT / "functions").iterdir()
    functions = {folder.name for folder in folders if any((folder / entry).exists() for entry in ENTRIES)}

    assert functions == set(SERVICES)


def test_a_scope_begins_with_its_service():
    for service in SERVICES.values():
        assert all(scope.startswith(f"{service.name}:") for scope in service.scopes)
    assert len(set(all_scopes())) == len(all_scopes())
