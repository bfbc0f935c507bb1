"""`python -m pdelab` is the command `pdelab`."""

from pdelab.cli import main

if __name__ == "__main__":
    main()
