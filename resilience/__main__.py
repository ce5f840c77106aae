"""``python -m resilience`` is the `resilience` command."""

from __future__ import annotations

import sys

from resilience.cli import main

sys.exit(main())
