"""Deliberate mistakes in the verifier: each must turn a named test red, or that test proves nothing."""

import ast
import io
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.anchors import MemorySigner
from holdfast_client import verifier
from holdfast_client.verifier import Broken, Seen, State, verify
from tests.exported_log import ExportedLog, pem
from tests.unit.client import test_verifier as tests

CODE_LINES_MAX = 400
"""What one person reads in a sitting, and may then trust."""

Patch = pytest.MonkeyPatch


def key_from_the_export(patch: Patch) -> None:
    take = verifier._Checks._take_anchor

    def credulous(self: Any, anchor: Any) -> None:
        if "BEGIN PUBLIC KEY" in anchor.key_id:
            self._is_signed = verifier._signature_check(anchor.key_id.encode())
        take(self, anchor)

    patch.setattr(verifier._Checks, "_take_anchor", credulous)


def any_signature(patch: Patch) -> None:
    patch.setattr(verifier, "_signature_check", lambda _keys: lambda _signature, _message: True)


def without_the_first_root(patch: Patch) -> None:
    follow = verifier._Tree.follow

    def forgetful(self: Any, head: Seen, name: str) -> None:
        if name != "What was seen before":
            follow(self, head, name)

    patch.setattr(verifier._Tree, "follow", forgetful)


def without_the_second_root(patch: Patch) -> None:
    follow = verifier._Tree.follow

    def forgetful(self: Any, head: Seen, name: str) -> None:
        if name == "What was seen before":
            follow(self, head, name)

    patch.setattr(verifier._Tree, "follow", forgetful)


def without_what_was_seen(patch: Patch) -> None:
    patch.setattr(verifier._Checks, "_meet_state", lambda _self, _now: None)


def without_the_tree_of_heads(patch: Patch) -> None:
    read = verifier._read

    def lenient(signed: bytes, kind: Any, name: str) -> Any:
        value = read(signed, kind, name)
        return msgspec.structs.replace(value, super_root="") if hasattr(value, "super_root") else value

    patch.setattr(verifier, "_read", lenient)
    patch.setattr(verifier, "_root_by_path", lambda *_args: b"")


def without_the_events(patch: Patch) -> None:
    class AnyRoot(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    patch.setattr(verifier, "_events_root", lambda _events: AnyRoot())


def without_the_streams(patch: Patch) -> None:
    patch.setattr(verifier._Checks, "_fault_in_stream", lambda _self, _extent, _header: None)


def without_the_digest(patch: Patch) -> None:
    def take(self: Any, _end: Any) -> None:
        self._is_over = True

    patch.setattr(verifier._Checks, "_take_end", take)


def headers_in_any_form(patch: Patch) -> None:
    class Whatever(bytes):
        __slots__ = ()
        __hash__ = bytes.__hash__

        def __ne__(self, other: object) -> bool:
            return False

    patch.setattr(verifier, "_encode", lambda _value: Whatever())


def without_order_of_anchors(patch: Patch) -> None:
    def follow(self: Any, now: State, name: str) -> None:
        for partition, tree in self._trees.items():
            head = now.heads.get(partition)
            if head:
                tree.follow(head, name)
        self._newest = now

    patch.setattr(verifier._Checks, "_follow", follow)


def seen(name: str) -> Callable[[ExportedLog, MemorySigner], None]:
    """Run one test of a change that must be found, on its own log."""
    changing = getattr(tests, name)
    return lambda log, _signer: tests.test_every_change_is_found(log, changing)


def one(test: Callable[[Any], None]) -> Callable[[ExportedLog, MemorySigner], None]:
    return lambda log, _signer: test(log)


def digest(log: ExportedLog, _signer: MemorySigner) -> None:
    tests.test_a_file_with_another_digest_or_more_lines_is_found(log)


def late_stream(log: ExportedLog, _signer: MemorySigner) -> None:
    tests.test_a_stream_whose_time_stands_still_is_found_although_it_is_signed(log)


def wording_of_a_header(log: ExportedLog, _signer: MemorySigner) -> None:
    """A header with a member said twice, signed as it is: two readers could read two things."""
    line = log.commits[2][-1]
    header = line.header.replace(b'{"actor":', b'{"actor":"eve","actor":')
    log.commits[2][-1] = msgspec.structs.replace(line, header=header)
    log.anchors.clear()
    log.anchor()
    assert "written" in tests.broken(log).reason


MISTAKES: dict[str, tuple[Callable[[Patch], None], Callable[[ExportedLog, MemorySigner], None]]] = {
    "the key from the export": (key_from_the_export, one(tests.test_the_key_that_an_export_names_is_not_asked)),
    "any signature": (any_signature, one(tests.test_a_signature_by_another_key_proves_nothing)),
    "no first root": (
        without_the_first_root,
        tests.test_a_history_rewritten_before_what_was_seen_is_found_by_its_root,
    ),
    "no second root": (
        without_the_second_root,
        tests.test_a_history_rewritten_after_what_was_signed_is_found_by_the_other_root,
    ),
    "no memory": (
        without_what_was_seen,
        tests.test_another_statement_under_a_number_that_was_seen_is_a_fork,
    ),
    "no tree of heads": (without_the_tree_of_heads, seen("misplace_a_head")),
    "no events": (without_the_events, seen("edit_event")),
    "no streams": (without_the_streams, late_stream),
    "no digest": (without_the_digest, digest),
    "headers in any form": (headers_in_any_form, wording_of_a_header),
    "anchors in any order": (
        without_order_of_anchors,
        one(tests.test_an_anchor_that_is_not_later_than_the_one_before_is_refused),
    ),
}


@pytest.mark.parametrize(("mistake", "test"), MISTAKES.values(), ids=MISTAKES)
def test_a_planted_mistake_turns_its_test_red(monkeypatch, mistake, test):
    signer = MemorySigner()
    test(tests.made(signer), signer)
    mistake(monkeypatch)

    with pytest.raises(AssertionError):
        test(tests.made(signer), signer)


def test_a_mistake_that_is_not_planted_leaves_all_as_it_is():
    log = tests.made(MemorySigner())

    assert not isinstance(verify(log.lines(), pem(log.signer)), Broken)


def test_the_verifier_shares_nothing_with_what_it_checks_and_is_short_enough_to_read():
    folder = Path(verifier.__file__).parent
    sources = [folder / "verifier.py", folder / "verifier_lines.py"]
    texts = [source.read_text() for source in sources]

    for text in texts:
        assert "import holdfast\n" not in text
        assert "from holdfast." not in text
        assert "functions" not in text
    assert sum(map(code_lines, texts)) <= CODE_LINES_MAX


def code_lines(text: str) -> int:
    """Count the lines that say something to the machine: no blank ones, no comments, no docstrings."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = {line for token in tokens if token.type not in silent for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            said -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(said)
