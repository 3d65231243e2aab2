"""`python -m ofvl_core` is the `ofvl` command; torchrun starts it so."""

from ofvl_core.cli import main

if __name__ == "__main__":
    main()
