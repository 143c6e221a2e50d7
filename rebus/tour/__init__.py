"""The offline demonstration: bundled models and asif/starter on held-out images.

    photos.py   the sample photos of scikit-image: zero-shot classification, text search, captions
    scenes.py   synthetic scenes: retrieval, captions, questions, detection, segmentation, next to the ground truth
    page.py     one HTML file with the images in it

`tour` returns the results as plain data; the caller writes the page and the table.
"""

from rebus.tour.page import page
from rebus.tour.parts import RELEASED, Line, Tour, plan, tour

__all__ = ["RELEASED", "Line", "Tour", "page", "plan", "tour"]
