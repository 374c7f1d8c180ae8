"""``bertsym doctor``."""

from __future__ import annotations

import json

import click

from bertsym.cli.command import Command
from bertsym.cli.options import json_option
from bertsym.terminal import escaped


@click.command("doctor", cls=Command)
@json_option
def command(as_json: bool) -> int:
    """Check this machine: Python, libraries, engines, processor, memory, disk, optional tools.

    One line for each, with the fix for a problem. The status is ok, note (works, but worth knowing), missing (optional)
    or broken. The exit code is 1 if something required is broken.
    """
    from bertsym.diagnosis import doctor

    result = doctor()
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        width = max(len(finding.name) for finding in result.findings)
        for finding in result.findings:
            fix = f"; fix: {finding.fix}" if finding.fix else ""
            click.echo(escaped(f"{finding.status:<8} {finding.name:<{width}}  {finding.text}{fix}"))
    return 1 if result.broken else 0
