"""The command `tlog`, in which one waits half a second at most for a turn, or a place among large bodies."""

if __name__ == "__main__":
    from tlog import config

    config.LARGE_SECONDS = config.TURN_SECONDS = 0.5  # type: ignore[misc]

    from tlog.cli import main

    main()
