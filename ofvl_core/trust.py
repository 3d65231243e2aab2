"""May a localization be published? What one image tells about its own pose, before odometry has a say."""

from dataclasses import dataclass

import numpy as np

from ofvl_core.fusion import largest_deviations
from ofvl_core.localizer import Localization


@dataclass(frozen=True)
class TrustOptions:
    """What a localization must fulfil. docs/tuning.md has the measurements behind the defaults."""

    min_inlier_share: float = 0.12
    """Share of the cells that agree with the network's own pose, at least; in a foreign place it is 0.05,
    rarely 0.1. A pose refined by keyframes needs no other witness than their landmarks."""
    max_position_deviation: float = 0.3
    """Metres; standard deviation of the position along its most uncertain direction, at most."""
    max_rotation_deviation: float = 0.175
    """Radians; standard deviation of the rotation about its most uncertain axis, at most."""


def distrust(localization: Localization, options: TrustOptions = TrustOptions()) -> str | None:
    """Why a localization must not be published, or None when it may be.

    The uncertainties that the network predicts enter through the covariance, which is made of them.
    """
    if localization.world_from_camera is None or localization.covariance is None:
        return localization.reason or "the pose has no covariance"
    if localization.landmarks is None and localization.inlier_share < options.min_inlier_share:
        total = len(localization.cells.inliers)
        needed = int(np.ceil(options.min_inlier_share * total))
        return f"{localization.inlier_count} of {total} cells agree with the pose, at least {needed} must"
    position, rotation = largest_deviations(localization.covariance)
    if position > options.max_position_deviation:
        limit = options.max_position_deviation
        return f"the position is known to {position:.2f} m only, at most {limit:g} m will do"
    if rotation > options.max_rotation_deviation:
        limit = np.degrees(options.max_rotation_deviation)
        return (
            f"the rotation is known to {np.degrees(rotation):.1f} degrees only, at most {limit:.1f} will do"
        )
    return None
