"""`python -m rebus.cli`, the same as `rebus`."""

import sys

from rebus.cli.app import main

sys.exit(main())
