"""What a RealSense camera calls its topics and frames; recordings and launch files follow it."""

import numpy as np

from ofvl_core.geometry import transform

COLOR_IMAGE = "/camera/camera/color/image_raw"
COLOR_INFO = "/camera/camera/color/camera_info"
DEPTH_IMAGE = "/camera/camera/aligned_depth_to_color/image_raw"
DEPTH_INFO = "/camera/camera/aligned_depth_to_color/camera_info"

CAMERA_FRAME = "camera_link"
COLOR_FRAME = "camera_color_frame"
OPTICAL_FRAME = "camera_color_optical_frame"

BODY_FROM_OPTICAL = transform((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))
"""From the optical axes (x right, y down, z forward) to a body's (x forward, y left, z up)."""

STATIC_TRANSFORMS = [(CAMERA_FRAME, COLOR_FRAME, np.eye(4)), (COLOR_FRAME, OPTICAL_FRAME, BODY_FROM_OPTICAL)]
"""The camera's own tree, (parent, child, parent_from_child), with the colour sensor in its middle."""
