"""How near does the automatic strength come to the best of a grid? See README.md."""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from qsmnet.cli.compose import compose
from qsmnet.evaluate.automatic import against_grid
from qsmnet.simulate.head.scan import HeadScan
from qsmnet.volumes import LocalField, TotalField

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--methods", nargs="+", help="some of config.yaml's")
    parser.add_argument("--smoke", action="store_true", help="one small head, without model error")
    args = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    if args.smoke:
        small = {"shape": [32, 40, 34], "voxel_size": [6.0, 6.0, 6.0]}
        config |= {"heads": [config["heads"][0] | small], "model_errors": [0.0], "vsharp": False}
    rows = [
        {"head": settings["seed"], "field": name, "method": method, **found.row()}
        for index, settings in enumerate(config["heads"])
        for head in [render(settings, config["lesions"] if index % 2 else "[]")]
        for name, local in fields(head, config)
        for method in args.methods or config["methods"]
        for inverter, values in [(compose("inverter", method), config["methods"][method])]
        for found in [against_grid(inverter, local, head.chi, values)]
    ]
    with (args.out / "results.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def render(settings: dict, lesions: str) -> HeadScan:
    simulator = compose("simulator", "head", [f"lesions={lesions}"])
    protocol = {key: value for key, value in settings.items() if key != "seed"}
    simulator = replace(simulator, protocol=replace(simulator.protocol, **protocol))
    return simulator.scene(settings["seed"], 0)


def fields(head: HeadScan, config: dict) -> Iterator[tuple[str, LocalField]]:
    generator = torch.Generator().manual_seed(0)
    noise, mask = head.noise * torch.randn(head.noise.shape, generator=generator), head.mask
    offset = torch.randn(256, generator=generator)[head.segmentation.long()]
    offset = (offset - offset[mask].mean()) * (head.local_field[mask].std() / offset[mask].std())
    for share in config["model_errors"]:
        field = (head.local_field + noise + share * offset) * mask
        yield f"model error {share:g}", LocalField(field, mask, head.geometry, noise=head.noise)
    if config["vsharp"]:
        total = TotalField(head.total_field + noise, mask, head.geometry, noise=head.noise)
        yield "V-SHARP", compose("background", "vsharp")(total)


if __name__ == "__main__":
    main()
