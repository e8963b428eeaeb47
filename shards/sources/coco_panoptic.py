"""The masks of COCO's panoptic format: one PNG per image, whose colours are segment ids.

Source: https://cocodataset.org/#format-data, "Panoptic Segmentation": id = R + 256 G + 256² B, 0 is unlabelled.
"""

# H W pixels

import numpy as np
from numpy.typing import NDArray

from manifests.errors import Reason, Rejected
from manifests.sample import Mask
from shards.images import decode_rgb
from shards.masks import mask_from_array


def read_segment_ids(png: bytes, *, height: int, width: int) -> NDArray[np.int32]:
    """The segment id of every pixel [H, W], column by column in memory as masks are.

    Raises:
        Rejected: the PNG is broken, or MASK_SIZE where it is not of `height` x `width`.
    """
    image = decode_rgb(png)
    if image.size != (width, height):
        raise Rejected(Reason.MASK_SIZE, f"PNG of {image.size[0]} x {image.size[1]}, expected {width} x {height}")
    red, green, blue = (np.asarray(image.getchannel(band)).T.astype(np.int32) for band in "RGB")
    ids_hw: NDArray[np.int32] = (red | green << 8 | blue << 16).T
    return ids_hw


def segment_mask(ids_hw: NDArray[np.int32], segment_id: int) -> Mask:
    """The mask of one segment.

    Raises:
        Rejected: MASK_EMPTY, no pixel has the colour of `segment_id`.
    """
    inside_hw = ids_hw == segment_id
    if not inside_hw.any():
        raise Rejected(Reason.MASK_EMPTY, f"no pixel of the PNG has the colour of segment {segment_id}")
    return mask_from_array(inside_hw)
