"""`python -m microsr` is the `microsr` command."""

from microsr.cli import main

main()
