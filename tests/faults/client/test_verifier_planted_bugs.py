"""Deliberate mistakes in the verifier: each must turn a named test red, or that test proves nothing."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.anchors import MemorySigner
from holdfast_client import verifier
from holdfast_client.export import write_lines
from holdfast_client.verifier import Broken, Proven, State, verify
from tests.exported_log import ExportedLog, pem
from tests.unit.client.verifier import changes, test_changed_exports, test_damaged_files
from tests.unit.client.verifier import test_who_holds_the_key as signed
from tests.unit.client.verifier.made_exports import broken, forked, made

LINES_MAX = 400
"""What one person reads in a sitting, and may then trust."""

Patch = pytest.MonkeyPatch


def key_from_the_export(patch: Patch) -> None:
    is_signed = verifier.is_signed

    def credulous(keys: Any, signature: bytes, message: bytes) -> bool:
        return is_signed([*keys, *offered], signature, message)

    offered: list[Any] = []
    take = verifier._Checks.take

    def noting(self: Any, line: bytes) -> None:
        if b"BEGIN PUBLIC KEY" in line:
            offered.extend(verifier.keys_of(msgspec.json.decode(line)["key_id"].encode()))
        take(self, line)

    patch.setattr(verifier, "is_signed", credulous)
    patch.setattr(verifier._Checks, "take", noting)


def any_signature(patch: Patch) -> None:
    patch.setattr(verifier, "is_signed", lambda _keys, _signature, _message: True)


def roots_of(patch: Patch, *, seen: bool) -> None:
    """Compare only the root of what was seen before, or only the others."""
    followed = verifier._Checks._followed

    def forgetful(self: Any) -> State:
        follow = verifier._Tree.follow
        known = {head[1] for head in self._seen.heads.values()} if self._seen else set()

        def follow_some(tree: Any, name: str, size: int, root: str) -> None:
            with suppress(*() if (root in known) is seen else (Broken,)):
                follow(tree, name, size, root)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(verifier._Tree, "follow", follow_some)
            return followed(self)

    patch.setattr(verifier._Checks, "_followed", forgetful)


def without_the_first_root(patch: Patch) -> None:
    roots_of(patch, seen=False)


def without_the_second_root(patch: Patch) -> None:
    roots_of(patch, seen=True)


def without_what_was_seen(patch: Patch) -> None:
    begin = verifier._Checks.__init__
    patch.setattr(verifier._Checks, "__init__", lambda self, keys, _state: begin(self, keys, None))


def without_the_tree_of_heads(patch: Patch) -> None:
    class AnyRoot(bytes):
        __slots__ = ()

        def hex(self, *_args: Any) -> Any:
            return Anything()

    patch.setattr(verifier, "root_by_path", lambda *_args: AnyRoot())


class Anything(str):
    """Is equal to whatever it is compared with."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def without_the_events(patch: Patch) -> None:
    patch.setattr(verifier, "events_root", lambda _events: Anything())


def without_the_streams(patch: Patch) -> None:
    take = verifier._Checks._take_commit

    def forgetful(self: Any, *told: Any) -> None:
        take(self, *told)
        streams = self._trees[told[0]].streams
        streams |= {stream: (version, digest, -1) for stream, (version, digest, _) in streams.items()}

    take_otherwise(patch, "commit", forgetful)


def without_the_digest(patch: Patch) -> None:
    take_otherwise(patch, "end", lambda _self, _lines, _digest: None)


def take_otherwise(patch: Patch, kind: str, take: Callable[..., None]) -> None:
    read, _, following = verifier._Checks._LINES[kind]
    patch.setitem(verifier._Checks._LINES, kind, (read, take, following))


def headers_in_any_form(patch: Patch) -> None:
    names = ("events_root", "first", "n", "prev", "rt", "stream", "tenant")

    def lenient(written: str) -> list[Any]:
        said = msgspec.json.decode(written)
        return [said[name] for name in names]

    patch.setattr(verifier, "read_header", lenient)


def without_order_of_anchors(patch: Patch) -> None:
    read, times = verifier.read_anchor, itertools.count(1)

    def in_order(*args: Any) -> Any:
        anchor, previous = read(*args)
        return replace(anchor, time=next(times)), previous

    patch.setattr(verifier, "read_anchor", in_order)


def missing_heads_for_empty_partitions(patch: Patch) -> None:
    read = verifier.read_anchor

    def credulous(told: Any, *rest: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(verifier, "PARTITIONS", len(told[-1]))
            anchor, previous = read(told, *rest)
        empty = (0, sha256(b"").hexdigest())
        return replace(anchor, heads=dict.fromkeys(range(verifier.PARTITIONS), empty) | dict(anchor.heads)), previous

    patch.setattr(verifier, "read_anchor", credulous)


def seen(name: str) -> Callable[[ExportedLog, MemorySigner], None]:
    """Run one test of a change that must be found, on its own log."""
    changing = getattr(changes, name)
    return lambda log, _signer: test_changed_exports.test_every_change_is_found(log, changing)


def one(test: Callable[[Any], None]) -> Callable[[ExportedLog, MemorySigner], None]:
    return lambda log, _signer: test(log)


def digest(log: ExportedLog, _signer: MemorySigner) -> None:
    test_damaged_files.test_a_file_with_another_digest_or_more_lines_is_found(log)


def late_stream(log: ExportedLog, _signer: MemorySigner) -> None:
    signed.test_a_stream_whose_time_stands_still_is_found_although_it_is_signed(log)


def wording_of_a_header(log: ExportedLog, _signer: MemorySigner) -> None:
    """A header with a member said twice, signed as it is: two readers could read two things."""
    line = log.commits[2][-1]
    header = line.header.replace(b'{"actor":', b'{"actor":"eve","actor":')
    log.commits[2][-1] = msgspec.structs.replace(line, header=header)
    log.anchors.clear()
    log.anchor()
    assert "header" in broken(log).reason


MISTAKES: dict[str, tuple[Callable[[Patch], None], Callable[[ExportedLog, MemorySigner], None]]] = {
    "the key from the export": (key_from_the_export, one(signed.test_the_key_that_an_export_names_is_not_asked)),
    "any signature": (any_signature, one(signed.test_a_signature_by_another_key_proves_nothing)),
    "no first root": (
        without_the_first_root,
        signed.test_a_history_rewritten_before_what_was_seen_is_found_by_its_root,
    ),
    "no second root": (
        without_the_second_root,
        signed.test_a_history_rewritten_after_what_was_signed_is_found_by_the_other_root,
    ),
    "no memory": (
        without_what_was_seen,
        signed.test_another_statement_under_a_number_that_was_seen_is_a_fork,
    ),
    "no tree of heads": (without_the_tree_of_heads, seen("misplace_a_head")),
    "a missing head for an empty partition": (
        missing_heads_for_empty_partitions,
        seen("keep_a_partition_back"),
    ),
    "no events": (without_the_events, seen("edit_event")),
    "no streams": (without_the_streams, late_stream),
    "no digest": (without_the_digest, digest),
    "headers in any form": (headers_in_any_form, wording_of_a_header),
    "anchors in any order": (
        without_order_of_anchors,
        one(signed.test_an_anchor_that_is_not_later_than_the_one_before_is_refused),
    ),
}


@pytest.mark.parametrize(("mistake", "test"), MISTAKES.values(), ids=MISTAKES)
def test_a_planted_mistake_turns_its_test_red(monkeypatch, mistake, test):
    signer = MemorySigner()
    test(made(signer), signer)
    mistake(monkeypatch)

    with pytest.raises(AssertionError):
        test(made(signer), signer)


def test_a_mistake_that_is_not_planted_leaves_all_as_it_is():
    log = made(MemorySigner())

    assert not isinstance(verify(log.lines(), pem(log.signer)), Broken)


# --- That it stands alone

STRANGER = """
import runpy
import sys

ALLOWED = {*sys.stdlib_module_names, "cryptography", "_cffi_backend", "cffi"}


class Nothing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"a stranger has no {name}")


loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"holdfast", "holdfast_client", "holdfast_cli", "functions", "stacks", "msgspec", "httpx"}, loaded
sys.meta_path.insert(0, Nothing)
for name in ("holdfast", "holdfast_client.errors", "functions", "msgspec"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(name)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program where nothing can be imported but Python itself and cryptography."""


def by_a_stranger(folder: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    copied = folder / "copied.py"
    copied.write_bytes(Path(verifier.__file__).read_bytes())
    command = [sys.executable, "-c", STRANGER, str(copied), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_copy_of_the_verifier_proves_a_history_where_nothing_of_ours_can_be_imported(tmp_path):
    log = made(MemorySigner())
    (tmp_path / "key.pem").write_bytes(pem(log.signer))
    write_lines(tmp_path / "log.gz", log.lines())
    asked = (tmp_path / "log.gz", tmp_path / "key.pem", tmp_path / "state.json")

    done = by_a_stranger(tmp_path, *asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Proven(")

    # What it has seen, it holds against what comes the next time.
    another = forked(log.signer, at=3)
    write_lines(tmp_path / "log.gz", another.lines())
    assert isinstance(verify(another.lines(), pem(log.signer)), Proven)
    done = by_a_stranger(tmp_path, *asked)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Broken(")


def test_the_verifier_is_short_enough_to_read():
    assert len(Path(verifier.__file__).read_text().splitlines()) <= LINES_MAX
