"""The states that visual odometry can be in, and how bad each is."""

from ofvl_ros.states import ERROR, OK, WARN

LEVELS = {
    "moving": OK,
    "resting": OK,
    "starting": WARN,
    "coasting": WARN,
    "no images": ERROR,
    "no camera_info": ERROR,
    "bad image": ERROR,
    "no transform": ERROR,
    "failed": ERROR,
}
"""Each state with its DiagnosticStatus level."""
