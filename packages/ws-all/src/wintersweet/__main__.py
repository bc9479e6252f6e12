"""``python -m wintersweet``: the command line."""

from wintersweet.cli import main

if __name__ == "__main__":
    main()
