"""``python -m sweeper.worker``: one worker as a process."""

import sys

from sweeper.imports import uncollected

if __name__ == "__main__":
    with uncollected():
        from sweeper.worker.process import main
    sys.exit(main())
