"""The command line of a study of cases, with this package's configs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qsmnet.cli.study import Say, chosen, run_study, study_parser
from qsmnet.evaluate.case_figures import draw_cases
from qsmnet.evaluate.case_run import Wanted, run_cases
from qsmnet.evaluate.case_study import CaseStudy
from qsmnet.evaluate.case_summary import summarise_cases


def run(folder: Path, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the study of ``folder``'s config.yaml; rows that are there are not made again.

    Raises
    ------
    SystemExit
        With one line, if a name, a setting or the folder with label maps is wrong.
    """
    parser = study_parser(folder, description, ("heads", "protocols", "tables", "methods"))
    parser.add_argument("--device", default="cpu", help="where methods run")
    args = parser.parse_args(argv)

    def make_rows(study: CaseStudy, say: Say) -> None:
        run_cases(replace(study, device=args.device), Wanted(**chosen(args)), say)

    run_study(args, CaseStudy.from_config, make_rows, _summarise)


def _summarise(study: CaseStudy, split: str) -> None:
    summarise_cases(study, split)
    draw_cases(study, split)
