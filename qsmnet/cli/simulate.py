"""``qsmnet simulate out=DIR n=4 simulator=brain seed=1``: scenes with known truth."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from qsmnet.cli.hydra_app import (
    WRONG_SETTINGS,
    build,
    folder_named,
    run_app,
    switch,
    whole_number,
)
from qsmnet.errors import OutputError, UsageError
from qsmnet.io.files import atomic_write, prepare_output_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HELP = """usage: qsmnet simulate out=DIR [n=4] [simulator=brain] [seed=1] [key=value ...]

Draw phantoms, render their local field with noise, and write one folder a scene with chi, mask,
segmentation, local_field, local_field_exact and noise (NIfTI, ppm), scene.json (the record that
makes it again, and the kernel that made the field), and contact_sheet.png. A scene whose field is
known outside the mask has field_support too: give it to reconstruct --field-support. Fields are
made with kernel prism: invert them with it too (reconstruct --set kernel=prism).

simulator=head scans whole heads, with air and bone, by a multi-echo sequence: magnitude and phase
(rad) with echo times and B0 in scan.json, and as truth chi, total_field, local_field, mask,
segmentation, r2star, phase_offset, unwrapped_phase and noise. Invert it with the kernel sampled.

  simulator=NAME          brain, primitives, fields, mixture, head, anatomy, anatomy_mixture
  simulator.sources.anatomy.labels=DIR            of the last two: label maps
  simulator.labels=DIR    of head: label maps instead of procedural heads (simulator.table)
  protocol@simulator.protocol=1mm_3T_axial        of head: grid, B0, sequence and SNR
  'simulator.lesions=[{chi: 1, radius: 3}]'       of head: balls, in ppm and mm
  simulator.shape=[128,160,128]
  simulator.acquisition.voxel_size=[0.7,0.7,1.4]  simulator.acquisition.b0_dir=[0,0.5,0.866]
  simulator.acquisition.noise=[0.002,0.002]       sd in ppm; noise_free=1 for none
  simulator.acquisition.voids=0.3                 share of scenes with signal voids
  simulator.acquisition.unmasked=1                the field is known on the whole grid
  split=NAME              an independent stream of scenes; overwrite=true replaces files
  --config-dir DIR        your own simulators: DIR/simulator/NAME.yaml, and the Python files of
                          their classes in DIR;  --cfg job  shows every setting

example: qsmnet simulate out=heads n=4 simulator=brain seed=1
         qsmnet simulate out=scans n=1 simulator=head seed=1
"""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(_HELP)
        return 0 if argv else 2
    run_app("simulate", simulate, argv)
    return 0


def simulate(config: DictConfig) -> None:
    """Write the scenes that a config describes.

    Raises
    ------
    UsageError
        If n or seed is no count, or a simulator's parameter is wrong.
    OutputError
        If a file is there already.
    """
    import matplotlib.pyplot as plt

    seed, n = whole_number(config, "seed", 0), whole_number(config, "n", 1)
    folder, overwrite = folder_named(config, "out"), switch(config, "overwrite")
    simulator = build("simulator", config.simulator)
    try:
        # all of them, before one is written
        records = [simulator.draw(seed, str(config.split), i) for i in range(n)]
    except WRONG_SETTINGS as error:
        raise UsageError("simulator", f"cannot draw: {error}", "change its settings") from error
    names = [f"scene_{i:03d}" for i in range(n)]
    files, write, sheet = _output_of(simulator)
    outputs = [f"{name}/{file}" for name in names for file in files]
    _prepare(folder, [*outputs, "contact_sheet.png"], overwrite)
    shown = []
    for i, name in enumerate(names):
        scene = simulator.render(records[i])
        write(folder / name, scene, overwrite)
        print(folder / name)
        shown += [scene] if i < 12 else []
    figure = sheet(shown)
    with atomic_write(folder / "contact_sheet.png", overwrite) as picture:
        figure.savefig(picture, dpi=80)
    plt.close(figure)


def _output_of(
    simulator: object,
) -> tuple[Sequence[str], Callable[[Path, Any, bool], None], Callable[[Any], "Figure"]]:
    """Files of one item, what writes them, and what draws a picture of several."""
    from qsmnet.simulate.contact_sheet import contact_sheet
    from qsmnet.simulate.head.contact_sheet import head_sheet
    from qsmnet.simulate.head.simulator import HeadSimulator
    from qsmnet.simulate.head.write import HEAD_FILES, write_head
    from qsmnet.simulate.write import FIELD_SUPPORT, FILES, write_scene

    if isinstance(simulator, HeadSimulator):
        return HEAD_FILES, write_head, head_sheet
    return (*FILES, FIELD_SUPPORT), write_scene, contact_sheet


def _prepare(folder: Path, outputs: Iterable[str], overwrite: bool) -> None:
    try:
        prepare_output_folder(folder, outputs, overwrite)
    except OutputError as error:
        # in the words of this verb, which has settings in place of options
        fix = error.fix.replace("pass --overwrite", "write overwrite=true")
        raise OutputError(error.source, error.problem, fix) from error
