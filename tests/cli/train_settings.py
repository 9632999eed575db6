"""Settings of the smallest run."""

TINY = [
    "experiment=smoke",
    "simulator=primitives",
    "simulator.shape=[12,12,12]",
    "network.channels=[4,6]",
    "data.phantoms=2",
    "data.validation_phantoms=1",
    "data.batch_size=1",
    "epoch=2",
    "warmup=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
]
