"""`python -m filterdb`."""

from filterdb.cli import main

if __name__ == "__main__":
    main()
