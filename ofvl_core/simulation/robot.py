"""A differential-drive robot: its frames, its motion, and what its wheels say about it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from ofvl_core import realsense
from ofvl_core.datasets.robot import Robot
from ofvl_core.geometry import transform
from ofvl_core.simulation.facets import UP

Array = NDArray[np.float64]

MAX_SPEED = 0.6  # metres a second
MAX_TURN = 0.8  # radians a second
ODOMETRY_RATE = 50.0  # hertz; also the rate of the simulated motion
RADIUS = 0.22  # metres
CAMERA_HEIGHT = 0.8
CAMERA_PITCH = np.radians(2.0)  # downwards

# Wheel odometry: one spread a sequence for the scales, then random walks a square root metre and radian.
DISTANCE_SCALE, TURN_SCALE = 0.01, 0.015
DISTANCE_WALK, TURN_WALK, HEADING_WALK = 0.004, 0.006, 0.004

# base_link is on the floor between the wheels. The colour imager sits 15 mm to the left of camera_link, as
# on a D435.
ROBOT = Robot(
    odom_frame="odom",
    base_frame="base_link",
    camera_frame=realsense.CAMERA_FRAME,
    optical_frame=realsense.OPTICAL_FRAME,
    static_transforms=[
        (
            "base_link",
            realsense.CAMERA_FRAME,
            transform(
                (0.1, 0.0, CAMERA_HEIGHT), (0.0, np.sin(CAMERA_PITCH / 2), 0.0, np.cos(CAMERA_PITCH / 2))
            ),
        ),
        (realsense.CAMERA_FRAME, realsense.COLOR_FRAME, transform((0.0, 0.015, 0.0), (0, 0, 0, 1))),
        (realsense.COLOR_FRAME, realsense.OPTICAL_FRAME, realsense.BODY_FROM_OPTICAL),
    ],
)
BASE_FROM_OPTICAL: Array = ROBOT.base_from_optical


def planar_pose(state: ArrayLike) -> Array:
    """world_from_base (4, 4) of a state (x, y, yaw), or (N, 4, 4) of N states."""
    states = np.atleast_2d(np.asarray(state, float))
    poses = np.tile(np.eye(4), (len(states), 1, 1))
    # The way by quaternions gives the last bit of what `transform` gives, and so of what a seed stands for.
    quaternions = Rotation.from_rotvec(states[:, 2:] * UP).as_quat()
    poses[:, :3, :3] = Rotation.from_quat(quaternions).as_matrix()
    poses[:, :2, 3] = states[:, :2]
    return poses.reshape(*np.shape(state)[:-1], 4, 4)


@dataclass(frozen=True)
class Motion:
    """A drive: the twist of each of N steps of 1 / ODOMETRY_RATE, and the states before and after them.

    `states` (N + 1, 3) are x, y, yaw in the world; `twists` (N, 2) metres and radians a second.
    """

    start: float
    states: Array
    twists: Array

    @property
    def times(self) -> Array:
        """Times (N + 1,) of the states, seconds."""
        return self.start + np.arange(len(self.states)) / ODOMETRY_RATE

    def twist(self, time: float) -> Array:
        """Speed and turn rate (2,) at a time within the drive."""
        return self.twists[self._step(time)]

    def world_from_base(self, time: float | Array) -> Array:
        """The exact pose (4, 4) at a time within the drive, or poses (K, 4, 4) at times (K,)."""
        step = self._step(time)
        return planar_pose(advance(self.states[step], self.twists[step], time - self.times[step]))

    def _step(self, time: float | Array) -> NDArray[np.int_]:
        return np.clip((time - self.start) * ODOMETRY_RATE, 0, len(self.twists) - 1).astype(int)

    def odometry(self, rng: np.random.Generator) -> Array:
        """odom_from_base as states (N + 1, 3) that the wheels report: from zero, with drift."""
        moved, turned = self.twists.T / ODOMETRY_RATE
        far, turn = np.sqrt(np.abs(moved)), np.sqrt(np.abs(turned))
        scales = 1 + rng.normal(0, (DISTANCE_SCALE, TURN_SCALE))
        noise = rng.normal(size=(3, len(moved)))
        measured = np.stack(
            [
                scales[0] * moved + DISTANCE_WALK * far * noise[0],
                scales[1] * turned + TURN_WALK * turn * noise[1] + HEADING_WALK * far * noise[2],
            ],
            axis=1,
        )
        states = np.zeros((len(measured) + 1, 3))
        for step, twist in enumerate(measured):
            states[step + 1] = advance(states[step], twist, 1.0)
        return states


def advance(state: Array, twist: Array, duration: float | Array) -> Array:
    """The state (x, y, yaw) after driving an exact arc with a constant twist (speed, turn rate).

    Takes N of each as well: states (N, 3), twists (N, 2), durations (N,).
    """
    x, y, yaw = np.moveaxis(state, -1, 0)
    speed, rate = np.moveaxis(twist, -1, 0)
    distance, turn = speed * duration, rate * duration
    # The chord of an arc: sin(turn / 2) / (turn / 2) of its length, along the mean heading.
    chord = distance * np.sinc(turn / (2 * np.pi))
    heading = yaw + turn / 2
    return np.stack([x + chord * np.cos(heading), y + chord * np.sin(heading), yaw + turn], axis=-1)
