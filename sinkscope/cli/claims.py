"""`sinkscope claims`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result


def claims(
    study: Annotated[Path, typer.Argument(help="directory of a finished study, as of analyses/paper.yaml")],
    out: Annotated[Path | None, typer.Option(help="directory to write claims.csv and claims.md to")] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Judge every claim of the paper on a study: effect, 95 % interval, n, and reproduced, not reproduced or inconclusive.

    Example: `sinkscope claims studies/paper --out figures`
    """
    from sinkscope.io.atomic import fill_directory
    from sinkscope.io.run_directory import wrap_read_errors
    from sinkscope.studies.claims import judge
    from sinkscope.studies.claims_table import markdown, readable
    from sinkscope.studies.paper_claims import paper_claims
    from sinkscope.studies.study import Study

    with wrap_read_errors(study):
        table = judge(Study(study), paper_claims())
    if out is not None:
        with fill_directory(out) as written:
            table.to_csv(written / "claims.csv", index=False, float_format="%.4g", lineterminator="\n")
            (written / "claims.md").write_text(markdown(table), encoding="utf-8")
    if json:
        print_result(
            {
                "study": str(study),
                "claims": table.astype(object).where(table.notna(), None).to_dict("records"),
            },
            True,
        )
    else:
        print(readable(table))
