"""``python -m selftaught`` is the command line."""

from selftaught.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
