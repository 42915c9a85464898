"""Names of the 80 classes of COCO (https://cocodataset.org), in the order of the released weights' class numbers.

COCO's own category ids run from 1 to 90 and leave ten out; a class's number is its place in this order.
"""

COCO_NAMES = (
    "BG", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

# Category ids that COCO left out.
_LEFT_OUT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def names_by_category() -> tuple[str, ...]:
    """Names by COCO's category ids, 0 to 90, as torchvision's models number classes; those that COCO left out are
    "unused 12" and the like."""
    names = iter(COCO_NAMES)
    return tuple(f"unused {number}" if number in _LEFT_OUT else next(names) for number in range(91))
