"""The command as a module, for torchrun: torchrun --nproc-per-node 2 -m memloc train DATA --out RUN."""

import sys

from memloc.cli import main

if __name__ == "__main__":
    sys.exit(main())
