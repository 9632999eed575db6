"""The small head that tests of heads look at."""

from qsmnet.simulate.head.protocol import Protocol

PROTOCOL = Protocol(
    shape=(44, 60, 48),
    voxel_size=(4.0, 4.0, 4.0),
    b0=3.0,
    b0_dir=(0.0, 0.2, 0.98),
    echo_times=(0.003, 0.006, 0.010),
    repetition_time=0.03,
    flip_angle=15.0,
    snr=50.0,
)
LESIONS = ({"chi": 1.0, "radius": 5.0}, {"chi": -1.5, "radius": 4.0, "tissue": "thalamus"})
