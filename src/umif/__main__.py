"""`python -m umif …` is `umif …`; so `torchrun -m umif pretrain …` works."""

from __future__ import annotations

import sys

from umif.cli import main

if __name__ == "__main__":
    sys.exit(main())
