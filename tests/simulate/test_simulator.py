"""Whole scenes: records, splits, shapes, masks and noise."""

import contextlib
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from qsmnet.simulate.acquisition import Acquisition, noise_map
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.primitives import Primitives
from qsmnet.simulate.random_fields import RandomFields
from qsmnet.simulate.randomness import lattice_noise, white_noise
from qsmnet.simulate.scene import Scene
from qsmnet.simulate.simulator import Simulator, geometry_of

SOURCES = {
    "brain": Brain(),
    "primitives": Primitives(count=(3, 12)),
    "fields": RandomFields(),
}
VOLUMES = (
    "chi",
    "mask",
    "segmentation",
    "local_field",
    "local_field_exact",
    "noise",
    "field_support",
)


def simulator(*names, acquisition=None, **settings):
    sources = {name: SOURCES[name] for name in names or SOURCES}
    measure = acquisition or Acquisition()
    return Simulator(sources, acquisition=measure, **{"shape": (18, 20, 16)} | settings)


def identical(one: Scene, other: Scene) -> bool:
    same = all(torch.equal(getattr(one, v), getattr(other, v)) for v in VOLUMES)
    return same and one.geometry == other.geometry


@pytest.mark.parametrize("name", SOURCES)
def test_record_is_json_and_makes_the_same_scene(name):
    made = simulator(name)
    record = made.draw(3, "test", 5)
    again = json.loads(json.dumps(record))
    assert again == record
    assert identical(made.render(record), simulator(name).render(again))


@pytest.mark.parametrize("name", SOURCES)
def test_seed_split_and_index_make_other_scenes(name):
    made = simulator(name)
    scene = made.scene(1, 0, "train")
    assert identical(scene, made.scene(1, 0, "train"))
    for other in (made.scene(2, 0, "train"), made.scene(1, 0, "test"), made.scene(1, 1, "train")):
        assert not torch.equal(scene.chi, other.chi)


def test_scenes_do_not_depend_on_the_batch():
    made = simulator()
    records = [made.draw(4, "test", i) for i in range(4)]
    for alone, together in zip(map(made.render, records), made.render_batch(records), strict=True):
        for name in VOLUMES:
            assert torch.allclose(
                getattr(alone, name).float(), getattr(together, name).float(), atol=1e-6
            )


def test_scene_holds_together():
    for index in range(6):
        scene = simulator().scene(2, index)
        assert not scene.chi[~scene.mask].any()
        assert not scene.segmentation[~scene.mask].any()
        assert not scene.local_field[~scene.field_support].any()
        assert scene.geometry == geometry_of(scene.record)
        assert scene.chi.isfinite().all()
        assert scene.local_field_exact.isfinite().all()


def test_noise_free_scene_is_exact_and_has_no_noise_map():
    scene = simulator("fields", acquisition=Acquisition(noise_free=1.0)).scene(1, 0)
    assert torch.equal(scene.local_field, scene.local_field_exact * scene.field_support)
    assert scene.as_local_field().noise is None


def test_added_noise_is_that_of_the_map():
    acquisition = Acquisition(noise=(0.01, 0.01), noise_free=0.0, unmasked=1.0)
    scene = simulator("fields", acquisition=acquisition, shape=(32, 32, 32)).scene(1, 3)
    error = (scene.local_field - scene.local_field_exact) / scene.noise
    assert float(error.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(scene.as_local_field().noise, scene.noise)


@pytest.mark.parametrize("unmasked", [0.0, 1.0])
def test_unmasked_field_is_known_everywhere(unmasked):
    scene = simulator("fields", acquisition=Acquisition(unmasked=unmasked)).scene(1, 0)
    expected = torch.ones_like(scene.mask) if unmasked else scene.mask
    assert torch.equal(scene.field_support, expected)
    assert bool(scene.local_field[~scene.mask].any()) == bool(unmasked)
    local = scene.as_local_field()
    assert torch.equal(local.mask, scene.mask)
    assert torch.equal(local.support > 0, scene.field_support)


def test_voids_are_in_the_noise_that_is_added():
    acquisition = Acquisition(noise=(0.01, 0.01), noise_free=0.0, strongly_noisy=0.0, unmasked=1.0)
    made = simulator("fields", acquisition=acquisition, shape=(32, 32, 32))
    record = made.draw(1, "test", 3)
    record["acquisition"]["noise"]["variation"] = 0.0
    ball = {"centre": [0.1, 0.0, -0.1], "radius": 5.0, "factor": 40.0}
    record["acquisition"]["voids"] = [ball]
    scene = made.render(record)
    void = scene.noise > 0.1
    # 500 to 4000 voxels: a relative standard error below 4 %
    assert 500 < int(void.sum()) < 4000
    error = scene.local_field - scene.local_field_exact
    assert float(error[void].std()) == pytest.approx(0.4, rel=0.15)
    assert float(error[~void].std()) == pytest.approx(0.01, rel=0.03)
    assert torch.equal(scene.as_local_field().noise, scene.noise)


def test_records_of_before_voids_render():
    made = simulator("fields")
    record = made.draw(1, "test", 0)
    with_none = record | {"acquisition": record["acquisition"] | {"voids": []}}
    before = json.loads(json.dumps(record))
    del before["acquisition"]["voids"]
    assert identical(made.render(before), made.render(with_none))


def test_items_do_not_depend_on_what_was_drawn_before():
    made = simulator(acquisition=Acquisition(voids=1.0))
    forwards = [made.draw(6, "test", i) for i in range(4)]
    backwards = [made.draw(6, "test", i) for i in reversed(range(4))]
    assert forwards == backwards[::-1]
    assert all(record["acquisition"]["voids"] for record in forwards)


@pytest.mark.slow
def test_processes_make_the_same_scenes():
    made = simulator(acquisition=Acquisition(voids=1.0, noise_free=0.0))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        elsewhere = list(pool.map(made.scene, [6] * 4, range(4)))
    for index, scene in enumerate(elsewhere):
        assert torch.allclose(scene.noise, made.scene(6, index).noise)
        assert torch.allclose(scene.local_field, made.scene(6, index).local_field, atol=1e-6)


@pytest.mark.parametrize("kernel", ["prism", "sampled"])
def test_scene_says_which_kernel_made_its_field(kernel):
    assert simulator("fields", acquisition=Acquisition(kernel=kernel)).scene(1, 0).kernel == kernel


def test_weights_are_shares():
    made = simulator("primitives", "fields", weights={"primitives": 0.0, "fields": 1.0})
    assert {made.draw(1, "test", i)["source"] for i in range(20)} == {"fields"}
    equal = simulator("primitives", "fields")
    drawn = [equal.draw(1, "test", i)["source"] for i in range(60)]
    assert 15 <= drawn.count("fields") <= 45


def test_same_extent_keeps_proportions_and_size():
    acquisition = Acquisition(voxel_size=(0.8, 0.8, 2.4))
    made = simulator("fields", acquisition=acquisition, same_extent=True, shape=(32, 40, 32))
    x, y, z = made.draw(1, "test", 0)["shape"]
    assert (x, y, z) == (46, 58, 16)
    assert x * y * z == pytest.approx(32 * 40 * 32, rel=0.1)
    assert [x * 0.8 / (z * 2.4), x * 0.8 / (y * 0.8)] == pytest.approx([1, 0.8], rel=0.1)


def test_a_record_may_be_rendered_on_another_grid():
    made = simulator("primitives", acquisition=Acquisition(voxel_size=(2.0, 2.0, 2.0)))
    record = made.draw(5, "test", 1)
    fine = made.phantom(record | {"shape": [36, 40, 32], "voxel_size": [1.0, 1.0, 1.0]})
    coarse = made.phantom(record)
    averaged = torch.nn.functional.avg_pool3d(fine.chi[None], 2)[0]
    both = torch.stack([averaged.flatten(), coarse.chi.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 4)])
def test_shapes_that_are_no_volume_are_refused(shape):
    with pytest.raises(ValueError, match="three sizes of at least 8"):
        simulator("fields", shape=shape)


@pytest.mark.parametrize(
    "weights", [{"brain": 1.0}, {"fields": 0.0}, {"fields": -1.0}, {"fields": float("nan")}]
)
def test_weights_that_are_none_of_the_sources_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        simulator("fields", weights=weights)


def test_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device abacus"):
        simulator("fields", device="abacus")


@pytest.mark.parametrize("same_extent", [False, True])
def test_shapes_are_all_that_are_drawn(same_extent):
    acquisition = Acquisition(voxel_sizes=4, isotropic=0.5)
    made = simulator("fields", acquisition=acquisition, same_extent=same_extent)
    drawn = {tuple(made.draw(3, "test", i)["shape"]) for i in range(60)}
    assert drawn == made.shapes(3)
    assert (len(drawn) > 1) == same_extent


# every part of the render path, on voxels whose partial volume needs a normal
EVERYTHING = Acquisition(voxel_size=(0.8, 0.9, 1.6), voids=1.0, noise_free=0.0, unmasked=0.5)


@pytest.mark.parametrize("name", SOURCES)
def test_rendering_stays_on_its_device(name, monkeypatch):
    """Tensors of the device ``meta`` have no values: one step on the CPU would fail."""
    # what is asked of values, whether a mask is empty, is answered yes
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: True)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    made = simulator(name, acquisition=EVERYTHING, device="meta")
    for index in range(3):
        scene = made.scene(3, index)
        assert {getattr(scene, volume).device.type for volume in VOLUMES} == {"meta"}


@pytest.mark.gpu
@pytest.mark.parametrize("name", SOURCES)
def test_gpu_renders_the_same_scene(name):
    cpu, gpu = (simulator(name, acquisition=EVERYTHING, device=d) for d in ("cpu", "cuda"))
    records = [cpu.draw(3, "test", index) for index in range(3)]
    assert records == [gpu.draw(3, "test", index) for index in range(3)]
    for one, other in zip(cpu.render_batch(records), gpu.render_batch(records), strict=True):
        for volume in VOLUMES:
            expected, found = getattr(one, volume), getattr(other, volume)
            assert found.device.type == "cuda"
            difference = (found.cpu().float() - expected.float()).abs()
            # a voxel on a threshold may fall to the other side
            assert float((difference > 1e-4).float().mean()) < 1e-3


@pytest.mark.gpu
def test_random_numbers_do_not_depend_on_the_device():
    cpu, gpu = (Grid((20, 22, 18), (1.0, 1.1, 1.4), device) for device in ("cpu", "cuda"))
    assert torch.equal(white_noise(3, cpu.shape, "cuda").cpu(), white_noise(3, cpu.shape))
    smooth = lattice_noise(3, 6.0, gpu.points()).cpu()
    assert torch.allclose(smooth, lattice_noise(3, 6.0, cpu.points()), atol=1e-4)
    record = EVERYTHING.draw(np.random.default_rng(0))
    maps = [noise_map(record["noise"], grid, record["voids"]).cpu() for grid in (cpu, gpu)]
    assert torch.allclose(maps[1], maps[0], rtol=1e-3)
