"""``python -m sweeper.worker``: one worker as a process."""

import sys

from sweeper.worker.process import main

if __name__ == "__main__":
    sys.exit(main())
