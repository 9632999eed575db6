"""The field outside of the mask: zero, filled, or weighted away? See README.md."""

import argparse
import csv
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

from qsmnet.evaluate.metrics import score
from qsmnet.evaluate.study import Condition
from qsmnet.inversion.tv import TV
from qsmnet.volumes import Susceptibility

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="one brain of 32^3, two lambdas")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    config |= config["smoke"] if args.smoke else {}
    done = []
    with (args.out / "results.csv").open("w", newline="", buffering=1) as file:
        writer = csv.writer(file)
        writer.writerow(("noise", "variant", "lambda", "split", "brain", "nrmse", "xsim"))
        for row in rows(config):
            writer.writerow(row)
            done.append(row)
    table = ["| noise | variant | lambda | NRMSE % | XSIM |", "|---|---|---|---|---|"]
    for key in dict.fromkeys(row[:3] for row in done if row[3] == "test"):
        brains = [row[5:] for row in done if row[:4] == (*key, "test")]
        medians = (f"{statistics.median(column):.4g}" for column in zip(*brains, strict=True))
        table.append(f"| {' | '.join([*map(str, key), *medians])} |")
    (args.out / "table.md").write_text("\n".join(table) + "\n")


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
    row = (
        at.noise,
        name,
        strength,
        split,
        brain,
        round(scores["nrmse"], 2),
        round(scores["xsim"], 4),
    )
    print(*row, sep="\t", flush=True)
    return row


if __name__ == "__main__":
    main()
