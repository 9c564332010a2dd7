"""Entry point of `python3 ontarget.pyz` and `python3 -m ontarget`; the commands are in `cli.py`."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; a missing numpy is one sentence."""
    try:
        from ontarget import cli
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        print(
            "ontarget needs numpy, which is not installed: run  pip install numpy", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("ontarget: interrupted.", file=sys.stderr)
        return 3
    return cli.main(argv)


def run() -> None:
    """Entry point for a zipapp, whose generated `__main__` ignores what a function returns."""
    raise SystemExit(main())


if __name__ == "__main__":
    run()
