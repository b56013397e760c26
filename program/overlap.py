"""How much two boxes are the same: intersection over union (IoU), from 0 to 1. (Of masks: program.masks.)"""

from collections.abc import Sequence


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two boxes (first edge, first edge, second edge, second edge), x or y first.

    Of two that have no area it is 1 if they are the same.
    """
    height, width = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (a, b))
    shared = height * width
    return shared / (areas - shared) if areas > shared else float(a == b)
