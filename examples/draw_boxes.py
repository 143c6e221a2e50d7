"""Draw what a detector found, or any boxes of yours: python examples/draw_boxes.py out.png"""

import sys

from rebus import Box
from rebus.data.scenes import scene
from rebus.tasks.draw import draw_boxes


def main(out: str = "boxes.png") -> None:
    image = scene(3, split="test")
    boxes = [Box(o.box, label, 1.0) for o, label in zip(image.objects, image.labels, strict=True)]
    draw_boxes(image.image, boxes).save(out)
    print(f"{out}: {', '.join(box.label for box in boxes)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
