"""Where a spinning LiDAR was, by KISS-ICP: a second opinion that shares nothing with `aloam` but the scans.

Vizzo et al., "KISS-ICP: In Defense of Point-to-Point ICP", RA-L 2023; the library kiss-icp, version 1.3.
"""

from collections.abc import Callable, Iterable

import numpy as np

from ofvl_core.errors import ConfigError, DataError
from ofvl_core.geometry import Array, invert
from ofvl_core.lidar.scan import Scan
from ofvl_core.lidar.scan_order import rising
from ofvl_core.stamped_path import StampedPath

NEAREST, FARTHEST = 0.5, 60.0  # metres
VOXEL = 0.3  # metres: the library's hundredth of the greatest range, 1 m, is for streets
FEWEST = 100  # points of a scan
FIRST_THRESHOLD = 0.5  # metres to a point's match, before motions are known


def kiss_icp(scans: Iterable[Scan], progress: Callable[[int], None] = lambda done: None) -> StampedPath:
    """Poses first_from_lidar at the scans' stamps; `progress` is told how many are done.

    Points are moved to the end of their scan, which is what a pose refers to, by their times; a scan whose
    times are all alike is taken as it is. Raises ConfigError without the library, and DataError for stamps
    that do not rise.
    """
    try:
        from kiss_icp.config import KISSConfig
        from kiss_icp.kiss_icp import KissICP
    except ImportError:
        raise ConfigError("poses by kiss-icp need that library: pip install kiss-icp==1.3.0") from None
    config = KISSConfig()
    config.data.min_range, config.data.max_range = NEAREST, FARTHEST
    config.mapping.voxel_size = VOXEL
    config.adaptive_threshold.initial_threshold = FIRST_THRESHOLD
    odometry = KissICP(config)
    stamps: list[int] = []
    poses: list[Array] = []
    for done, scan in enumerate(rising(scans), 1):
        finite = np.isfinite(scan.points).all(axis=1)
        if finite.sum() >= FEWEST:
            times = scan.times[finite].astype(np.float64)
            if np.ptp(times) == 0:
                times = times[
                    :0
                ]  # the library would divide by their span; without times it compensates nothing
            odometry.register_frame(scan.points[finite].astype(np.float64), times)
            stamps.append(scan.stamp)
            poses.append(odometry.last_pose)
        progress(done)
    if not poses:
        raise DataError(f"no scan has {FEWEST} points: check that the topic is a spinning LiDAR's")
    return StampedPath(np.array(stamps, np.int64), invert(poses[0]) @ np.stack(poses))
