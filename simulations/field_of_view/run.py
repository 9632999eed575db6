"""Does a k-space network depend on the grid that a brain comes on? See README.md."""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from qsmnet.evaluate.metrics import score
from qsmnet.inversion.learned import LearnedInverter, load_network
from qsmnet.inversion.tkd import TKD
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.simulator import Simulator

HERE = Path(__file__).parent
COLUMNS = ("size", "empty", "factor", "kqsm_nrmse", "tkd_nrmse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--smoke", action="store_true", help="one grid of 32^3")
    args = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    config |= {"sizes": [32]} if args.smoke else {}
    rows = [row for size in config["sizes"] for row in on_grid(size, config)]
    with (args.out / "results.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])


def on_grid(size: int, config: dict) -> list[tuple]:
    voxel = config["field_of_view_mm"] / size
    acquisition = Acquisition(voxel_size=(voxel,) * 3, b0_dir=(0, 0, 1), unmasked=0.0, voids=0.0)
    simulator = Simulator({"brain": Brain()}, acquisition=acquisition, shape=(size,) * 3)
    record = simulator.draw(config["seed"], "test", config["brain"])
    noise = {**record["acquisition"]["noise"], "level": config["noise"], "variation": 0.0}
    record["acquisition"]["noise"] = noise
    scene = simulator.render(record)
    local, rows = scene.as_local_field(), []
    for empty in config["empty"]:
        margin = (round((empty - 1) * size / 2),) * 6
        volumes = local.field, local.mask, local.support, scene.noise, scene.chi
        wide = [torch.nn.functional.pad(volume.float(), margin) for volume in volumes]
        inside = wide[1] > 0.5
        given = replace(local, field=wide[0], mask=inside, field_support=wide[2], noise=wide[3])
        for factor in config["factors"]:
            load_network("kqsm", "cpu", "prism")[0].field_of_view = factor
            methods = LearnedInverter("kqsm", "prism"), TKD(0.2, kernel="prism")
            maps = [method(given).chi for method in methods]
            scores = [score(m.numpy(), wide[4].numpy(), inside.numpy())["nrmse"] for m in maps]
            rows.append((size, empty, factor, *(round(float(s), 2) for s in scores)))
    return rows


if __name__ == "__main__":
    main()
