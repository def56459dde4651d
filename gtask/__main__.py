"""``python -m gtask`` is the command ``gtask``."""

from gtask.tool.cli import main

raise SystemExit(main())
