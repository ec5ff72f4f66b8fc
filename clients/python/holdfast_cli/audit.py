"""`./holdfast audit`: which commands there are; what they do stands in the modules named after them."""

import typer

from holdfast_cli import (
    audit_bench,
    audit_import,
    audit_prove,
    audit_rebuilds,
    audit_streams,
    audit_subjects,
    audit_tail,
    audit_verify,
)

app = typer.Typer(help="The audit trail: bring histories in, append, read, ask for any past state, and prove it.")
app.command("import")(audit_import.import_)
app.command()(audit_streams.append)
app.command()(audit_streams.events)
app.command()(audit_streams.state)
app.command()(audit_streams.diff)
app.command()(audit_streams.streams)
app.command()(audit_tail.tail)
app.command()(audit_prove.prove)
app.command()(audit_verify.export)
app.command()(audit_verify.verify)
app.command()(audit_rebuilds.rebuild)
app.command()(audit_rebuilds.rebuild_change)
app.command()(audit_subjects.hold)
app.command()(audit_subjects.release)
app.command()(audit_subjects.erase)
app.command()(audit_bench.bench)
