import sys

from mithridate.cli import main

if __name__ == "__main__":  # processes of a study import this module again
    sys.exit(main())
