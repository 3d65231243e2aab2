"""Pictures that are known in parts, as depth images are."""

import cv2
import numpy as np
from numpy.typing import NDArray


def nearest_known(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The values (h, w), where they are not `known` those of the nearest pixel that is; one must be."""
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.empty(labels.max() + 1, np.float32)
    by_label[labels[known]] = values[known]
    return by_label[labels]
