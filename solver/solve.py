#!/usr/bin/env python3
"""The documented front of build/bin/solve: finds the program and passes all flags on to it.

    python3 solver/solve.py --model M.gguf --output DIR --target-gpu-layers 20 --gpu-memory-gb 16

It needs nothing but Python's standard library; the work is done by the C++ program, whose --help
lists all flags. The program is looked for in the folder that THERMOCLINE_BIN names, beside this
file (as installed), and in build/bin of the source.
"""
import os
import pathlib
import sys

# As a shell says it of a command that is not there.
EXIT_NOT_FOUND = 127


def folders():
    """Where the program may be, in the order of looking. One that the user names is the only one."""
    named = os.environ.get("THERMOCLINE_BIN")
    if named:
        return [pathlib.Path(named)]
    here = pathlib.Path(__file__).resolve().parent
    return [here, here.parent / "build" / "bin"]


def main():
    looked = [folder / "solve" for folder in folders()]
    program = next((path for path in looked if path.is_file() and os.access(path, os.X_OK)), None)
    if program is None:
        print("solve.py: error: the program is not built: there is no "
              + " or ".join(str(path) for path in looked)
              + "; build it (cmake --build build) or name its folder in THERMOCLINE_BIN",
              file=sys.stderr)
        return EXIT_NOT_FOUND
    sys.stdout.flush()
    # In place of this process: signals and the exit code are the program's own.
    os.execv(program, [str(program), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
