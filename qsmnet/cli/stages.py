"""The command line of a study of the pipeline's stages, with this package's configs."""

from collections.abc import Sequence
from pathlib import Path

from qsmnet.cli.study import Say, chosen, run_study, study_parser
from qsmnet.evaluate.stage_run import run_stages
from qsmnet.evaluate.stage_study import StageStudy, Wanted
from qsmnet.evaluate.stage_summary import summarise_stages


def run(folder: Path, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the study of ``folder``'s config.yaml; rows that are there are not made again.

    Raises
    ------
    SystemExit
        With one line, if a name, a setting or the folder with label maps is wrong.
    """
    parser = study_parser(folder, description, ("heads", "conditions", "tables", "methods"))
    args = parser.parse_args(argv)

    def make_rows(study: StageStudy, say: Say) -> None:
        run_stages(study, Wanted(**chosen(args)), say)

    run_study(args, StageStudy.from_config, make_rows, summarise_stages)
