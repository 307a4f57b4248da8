"""Where a job's process waits until the queue knows it; then it becomes the job. Standard library only.

The worker starts `gate.py COMMAND...`, notes the process in the database, and only then says go. Where the worker is
killed in between, the pipe between them closes and the process ends: no job ever runs that the queue does not know.
On POSIX the process number and its start time stay the same, because the process is replaced and not a new one.
"""

import os
import subprocess
import sys

GO = b"g"
CANNOT_START = 127  # not 1: that is a job's own word for something the user can mend


def main() -> None:
    """Wait for the word on standard input, then become the command; end at once where no word comes."""
    if os.read(0, 1) != GO:
        return
    command = sys.argv[1:]
    if os.name == "nt":  # Windows cannot replace a process: this one waits for it
        sys.exit(subprocess.call(command, stdin=subprocess.DEVNULL))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error}", file=sys.stderr)
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main()
