"""The field outside of the mask: zero, filled, or weighted away? See README.md."""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import yaml

from qsmnet.evaluate.metrics import score
from qsmnet.evaluate.study import Condition
from qsmnet.inversion.tv import TV
from qsmnet.volumes import Susceptibility

HERE = Path(__file__).parent
COLUMNS = ("noise", "variant", "lambda", "split", "brain", "nrmse", "xsim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--smoke", action="store_true", help="one brain of 32^3, two lambdas")
    args = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    config |= config["smoke"] if args.smoke else {}
    done = []
    for row in rows(config):
        print(*row, sep="\t", flush=True)
        done.append(row)
    with (args.out / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *done])
    table = [COLUMNS, ["---"] * len(COLUMNS), *(row for row in done if row[3] == "test")]
    lines = (f"| {' | '.join(map(str, row))} |\n" for row in table)
    (args.out / "table.md").write_text("".join(lines))


def rows(config: dict) -> Iterator[tuple]:
    """Every lambda on the head it is chosen on, then the best one on the others."""
    for sd in config["noise"]:
        at = Condition(f"sd {sd}", sd, config["shape"], inverting=config["kernel"])
        for name in config["variants"]:
            tried = [run(at, config, name, v, "choose", 0) for v in config["regularisation"]]
            yield from tried
            best = min(tried, key=lambda row: row[5])[2]
            yield from (run(at, config, name, best, "test", i) for i in range(config["brains"]))


def run(at: Condition, config: dict, name: str, strength: float, split: str, brain: int) -> tuple:
    scene = at.scene(config["seed"], split, brain)
    method = TV(strength, noise_gain=0.0, kernel=at.inverting, **config["variants"][name])
    pair = method(scene.as_local_field()), Susceptibility(scene.chi, scene.mask)
    scores = score(*(s.referenced_to_mean().chi.numpy() for s in pair), scene.mask.numpy())
    figures = round(scores["nrmse"], 2), round(scores["xsim"], 4)
    return at.noise, name, strength, split, brain, *figures


if __name__ == "__main__":
    main()
