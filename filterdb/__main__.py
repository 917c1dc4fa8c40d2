"""`python -m filterdb`."""

from filterdb.commands import main

if __name__ == "__main__":
    main()
