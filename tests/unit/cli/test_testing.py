"""What `./holdfast test` counts: whatever does not pass must not look as if it had."""

from pathlib import Path

import pytest

from holdfast_cli import testing
from holdfast_cli.failures import Failure
from holdfast_cli.testing import Count, Selection, read_report

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.unit.client.test_x" name="passes" time="0.5"/>
<testcase classname="tests.unit.client.test_x.TestGroup" name="fails" time="0.25"><failure message="no"/></testcase>
<testcase classname="tests.property.client.test_y" name="cannot be set up" time="1"><error message="no"/></testcase>
<testcase classname="tests.local.audit.test_z" name="is skipped" time="0"><skipped message="why"/></testcase>
<testcase classname="" name="tests.unit.broken" time="0"><error message="collection failure"/></testcase>
</testsuite></testsuites>
"""


def test_a_report_is_counted_by_the_kind_of_its_folder(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    counts: dict[str, Count] = {}

    assert read_report(report, counts) == 5

    numbers = {kind: (count.passed, count.failed, count.skipped, count.seconds) for kind, count in counts.items()}
    assert numbers == {"unit": (1, 2, 0, 0.75), "property": (0, 1, 0, 1.0), "local": (0, 0, 1, 0.0)}


def test_a_run_that_left_no_report_counts_as_failed(monkeypatch, tmp_path):
    monkeypatch.setattr(testing, "_call", lambda *arguments: 3)
    counts: dict[str, Count] = {}

    testing._run_pytest(["tests/unit"], Selection.of([], None, None), tmp_path / "none.xml", {}, counts, among=())

    assert counts["unit"].failed == 1


@pytest.mark.parametrize(
    ("counts", "is_failed"),
    [({}, True), ({"unit": Count(skipped=3)}, True), ({"unit": Count(passed=1)}, False)],
)
def test_having_run_nothing_is_no_success(counts, is_failed):
    assert testing._is_failed(counts) is is_failed


def test_paths_are_sorted_by_whether_they_need_the_stack(monkeypatch, tmp_path):
    for folder in ("tests/unit/cli", "tests/property", "tests/local/audit"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tests/unit/cli/test_x.py").touch()
    monkeypatch.setattr(testing, "ROOT", tmp_path)

    def chosen(*paths: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        selection = Selection.of(paths, None, None)
        return selection.alone, selection.on_stack

    assert chosen() == (("tests/unit", "tests/property"), ("tests/local",))
    assert chosen("tests") == chosen()
    assert chosen("tests/unit/cli") == (("tests/unit/cli",), ())
    assert chosen("tests/unit/cli/test_x.py::test_y") == (("tests/unit/cli/test_x.py::test_y",), ())
    assert chosen("tests/local/audit") == ((), ("tests/local/audit",))


def test_the_last_line_is_the_plain_sum(tmp_path):
    output = (tmp_path / "out").open("w+")
    counts = {"unit": Count(passed=2, skipped=1, seconds=0.1), "local": Count(passed=1, failed=1, failures=["x"])}

    with output:
        testing._show(counts, output)
        output.seek(0)
        lines = output.read().splitlines()

    assert lines[-2:] == ["failed: x", "3 passed, 1 failed, 1 skipped"]


def test_a_check_that_takes_too_long_has_failed():
    assert testing._call(["sleep", "5"], {}, 0.1) != 0


def test_two_test_runs_do_not_share_a_stack(tmp_path: Path):
    with testing._only_one(tmp_path), pytest.raises(Failure, match="Another"), testing._only_one(tmp_path):
        pass
