"""python -m quasinat: the commands, as `torchrun -m quasinat` starts them."""

from quasinat.cli import main

if __name__ == "__main__":
    main()
