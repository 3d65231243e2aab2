"""All pictures of a scene in one image, at several sizes, so that one look-up samples any surface."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Array32 = NDArray[np.float32]

LEVELS = 7
WIDTH = 4096
BORDER = 1  # texels repeated around a picture: a bilinear sample reaches half a texel outside


class Atlas:
    """Pictures and their reductions by 2, 4, ... 2^(LEVELS - 1)."""

    def __init__(self, pictures: list[Image]) -> None:
        """`pictures` are RGB (height, width, 3), none wider than the atlas."""
        pieces: list[Image] = []
        placing = np.zeros((len(pictures), LEVELS, 4), np.float32)
        for number, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            piece = picture
            for level in range(LEVELS):
                size = (max(1, width >> level), max(1, height >> level))
                if level:
                    piece = np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_AREA), np.uint8)
                placing[number, level, 2:] = size[0] / width, size[1] / height
                pieces.append(np.pad(piece, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="edge"))
        corners, height = _pack([piece.shape[:2] for piece in pieces])
        self._image = np.zeros((height, WIDTH, 3), np.uint8)
        for piece, (x, y) in zip(pieces, corners, strict=True):
            self._image[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
        # A picture spans -0.5 .. width - 0.5 in pixel centres.
        placing[..., :2] = np.array(corners, np.float32).reshape(len(pictures), LEVELS, 2) + BORDER - 0.5
        self._placing = np.ascontiguousarray(placing.reshape(-1, 4).T)

    def sample(self, picture: NDArray[np.int32], x: Array32, y: Array32, level: Array32) -> Array32:
        """RGB (rows, columns, 3) in 0..255 at texel positions x, y (from a picture's corner, full size).

        All arguments are (rows, columns); `level` may lie between two reductions.
        """
        level = np.clip(level, 0, LEVELS - 1.001)
        lower = level.astype(np.int32)
        base = picture * LEVELS + lower
        fine = self._look_up(base, x, y)
        coarse = self._look_up(base + 1, x, y)
        share = (level - lower)[..., None]
        return fine + (coarse - fine) * share

    def _look_up(self, index: NDArray[np.int32], x: Array32, y: Array32) -> Array32:
        left, top, across, along = (column.take(index) for column in self._placing)
        sampled = cv2.remap(self._image, left + x * across, top + y * along, cv2.INTER_LINEAR)
        return sampled.astype(np.float32)


def _pack(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """Top left corners (x, y) for (height, width) rectangles in rows of WIDTH, and the height they need."""
    corners = [(0, 0)] * len(sizes)
    x = y = row_height = 0
    for number in sorted(range(len(sizes)), key=lambda i: (-sizes[i][0], -sizes[i][1], i)):
        height, width = sizes[number]
        if x + width > WIDTH:
            x, y, row_height = 0, y + row_height, 0
        corners[number] = (x, y)
        x, row_height = x + width, max(row_height, height)
    return corners, y + row_height
