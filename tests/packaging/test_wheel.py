"""The wheel, made from the sdist, installed away from the checkout and run from another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import qsmnet

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Sdist and, from it, wheel; built on a copy, to leave no folder in the checkout."""
    source = tmp_path_factory.mktemp("build") / "source"
    hidden = shutil.ignore_patterns("__pycache__")
    for folder in ("qsmnet", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", ".", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_wheel_holds_every_file_that_is_read_at_run_time(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        f"qsmnet/configs/{path.relative_to(ROOT / 'configs')}"
        for path in (ROOT / "configs").rglob("*.yaml")
    } | {
        str(path.relative_to(ROOT))
        for path in (ROOT / "qsmnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not needed - names


def test_wheel_has_one_top_level_package(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    info = f"qsmnet-{qsmnet.__version__}.dist-info"
    assert tops == {"qsmnet", info}
    licences = {n.split("/")[-1] for n in zipfile.ZipFile(wheel).namelist() if "/licenses/" in n}
    assert licences == {"LICENSE", "NOTICE"}


def test_sdist_was_made_first(dist):
    assert [path.name for path in dist.glob("*.tar.gz")] == [f"qsmnet-{qsmnet.__version__}.tar.gz"]


def test_installed_command_runs_from_the_root_folder(site):
    root = Path("/")
    version = run(site / "bin" / "qsmnet", "--version", cwd=root, PYTHONPATH=str(site))
    assert qsmnet.__version__ in version
    code = "import qsmnet, qsmnet.configs; print(qsmnet.__file__); print(qsmnet.configs.__file__)"
    places = run(sys.executable, "-c", code, cwd=root, PYTHONPATH=str(site)).split()
    assert all(Path(place).is_relative_to(site) for place in places), places


def test_installed_configs_compose_from_the_root_folder(site):
    code = (
        "from qsmnet.cli.compose import compose\n"
        "print(compose('inverter', 'tkd', ['threshold=0.2']).threshold)"
    )
    assert run(sys.executable, "-c", code, cwd=Path("/"), PYTHONPATH=str(site)) == "0.2\n"


@pytest.mark.slow
def test_demo_runs_from_the_root_folder(site, tmp_path):
    out = tmp_path / "demo"
    run(site / "bin" / "qsmnet", "demo", "--out", out, cwd=Path("/"), PYTHONPATH=str(site))
    assert (out / "metrics.csv").is_file()
    assert list(out.glob("*.png"))
