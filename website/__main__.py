"""Build the site strictly and without a network, and check that nothing in it is broken.

    python -m website [FOLDER]

FOLDER (build) then holds docs/, the pages that were gathered, and site/.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from website.assemble import ROOT, assemble
from website.crawl import faults


def main(build: Path = ROOT / "build") -> int:
    """The exit code of the build, or 1 where the site has broken links or asks other hosts for something."""
    pages, site = build / "docs", build / "site"
    for folder in (pages, site):
        shutil.rmtree(folder, ignore_errors=True)
    config = assemble(pages, build / "mkdocs.yml")
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run([zensical, "build", "--strict", "--clean", "--config-file", config], check=False)
    if done.returncode:
        return done.returncode
    found = faults(site)
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages in {site}, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
