"""``python -m deployments.cli``: the command line where the script ``nightglass`` is not on the path."""

from deployments.cli import main

if __name__ == "__main__":
    main()
