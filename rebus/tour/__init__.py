"""The offline demonstration: bundled models and asif/starter at their tasks, on images that they have never seen.

    photos.py   the sample photos of scikit-image, sorted into labels and found by words, without any training
    scenes.py   scenes found by their captions; captioned, asked about, searched and painted, with the truth beside
    page.py     one HTML file with the images in it

`tour` gives both results as plain data; who calls it writes the page and the table.
"""

from rebus.tour.page import page
from rebus.tour.parts import Line, Tour, plan, tour

__all__ = ["Line", "Tour", "page", "plan", "tour"]
