"""``python -m lstmlm`` is the command line."""

from lstmlm.cli import main

main()
