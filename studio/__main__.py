"""`python -m studio COMMAND`."""

from studio.cli.app import main

if __name__ == "__main__":
    main()
