"""The verbs, put together."""

from __future__ import annotations

import typer

from refeed.cli import advise, check, explain, export, forecast, gc, plan, policies, report, run, show, studies, theory

app = typer.Typer(
    name="refeed",
    help="Model-data feedback loops: generate, update the data by a policy, train, evaluate, repeat.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.demo)
app.command()(run.run)
app.command()(plan.plan)
app.command()(show.show)
app.command()(report.report)
app.command()(explain.explain)
app.command()(export.export)
app.command()(gc.gc)
app.command()(studies.studies)
app.command()(policies.policies)
app.command()(theory.theory)
app.command()(advise.advise)
app.command()(forecast.forecast)
app.command()(check.check)


def _version(value: bool) -> None:
    if value:
        import refeed

        typer.echo(f"refeed {refeed.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass
