"""Training items a second: ``python scripts/benchmark_simulator.py --workers 2``.

Items of 64^3 voxels of ``simulator=mixture`` from a bank on disk, measured anew (B0, noise, mirror
images, scale): the same data set that training uses. The first items of each voxel size also build
its dipole spectra; they are in ``with caches empty`` and not in ``steady``.

``--labels FOLDER`` measures ``simulator=anatomy_mixture`` with label maps instead: seconds of one
processor a phantom and an item, maps read and spectra built before.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from qsmnet.cli.compose import compose
from qsmnet.simulate.randomness import item_generator
from qsmnet.training.anatomy import anatomy_simulator
from qsmnet.training.data import simulated_pairs


def anatomy(labels: Path, n: int) -> None:
    simulator = anatomy_simulator(compose("simulator", "anatomy_mixture"), labels, (1, 2, 3))
    records = [simulator.draw(1, "benchmark", i) for i in range(n)]
    seconds: dict[str, list[float]] = {}
    phantoms = []
    for record in records:
        simulator.phantom(record)
        begin = time.process_time()
        phantoms.append(simulator.phantom(record))
        seconds.setdefault(record["source"], []).append(time.process_time() - begin)
    for name, each in seconds.items():
        print(f"phantom of {name}: {statistics.mean(each):.3f} s, at most {max(each):.3f}")
    items = []
    for i, (phantom, record) in enumerate(zip(phantoms, records, strict=True)):
        simulator.measure([phantom], [record])
        drawn = {**record, **simulator.draw_measurement(item_generator(1, "benchmark items", i))}
        begin = time.process_time()
        simulator.measure([phantom], [drawn])
        items.append(time.process_time() - begin)
    print(f"item: {statistics.mean(items):.3f} s, at most {max(items):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--phantoms", type=int, default=64)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.labels is not None:
        anatomy(args.labels, args.phantoms)
        return
    simulator = compose("simulator", "mixture")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        pairs = simulated_pairs(
            simulator, Path(folder), args.phantoms, 1, seed=1, workers=args.workers, build_workers=2
        )
        print(f"bank: {args.phantoms / (time.perf_counter() - begin):.1f} phantoms a second")
        stamps = []
        for _batch in pairs.train_dataloader():
            stamps.append(time.perf_counter())
            if len(stamps) > args.items:
                break
    half = len(stamps) // 2
    print(f"with caches empty: {half / (stamps[half] - stamps[0]):.1f} items a second")
    print(f"steady: {(len(stamps) - 1 - half) / (stamps[-1] - stamps[half]):.1f} items a second")


if __name__ == "__main__":
    main()
