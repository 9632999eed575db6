"""No dependency may drag CUDA in: gigabytes, and on a CPU machine nothing that uses them."""

import os
import re
from importlib import metadata

import pytest
import torch

CUDA_NAMES = re.compile(
    r"nvidia[-_].*|triton|pytorch[-_]triton.*|cuda[-_](?:bindings|python|toolkit|pathfinder)"
)


def installed() -> set[str]:
    return {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}


def direct_requirements(name: str) -> set[str]:
    requirements = metadata.requires(name) or []
    return {re.split(r"[\s;<>=!~\[(]", each, maxsplit=1)[0].lower() for each in requirements}


def test_no_cuda_package_beside_the_cpu_torch():
    if torch.version.cuda is not None:
        if os.environ.get("QSMNET_EXPECT_CPU_TORCH"):
            pytest.fail(
                f"torch {torch.__version__} is a CUDA build: a dependency replaced the CPU one"
            )
        pytest.skip("this torch is a CUDA build")
    dragged = sorted(filter(CUDA_NAMES.fullmatch, installed()))
    assert not dragged, f"CUDA packages beside torch {torch.__version__}: {dragged}"


def test_no_dependency_pins_another_torch():
    # torchvision and torchaudio are tied to one torch build and make pip replace the one in place
    assert not installed() & {"torchvision", "torchaudio", "antspyx", "deepinv"}


@pytest.mark.parametrize("name", sorted(direct_requirements("qsmnet") - {"torch"}))
def test_no_direct_requirement_asks_for_cuda(name):
    try:
        wanted = direct_requirements(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is an extra that is not installed")
    assert not list(filter(CUDA_NAMES.fullmatch, wanted))
