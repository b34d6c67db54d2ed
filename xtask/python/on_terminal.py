"""`on_terminal.py ANSWER COMMAND…`: runs a command on a terminal of its own and types the answer each time it asks for a passphrase.

What the command prints goes to standard output; its exit code is ours.
"""

import os
import pty
import re
import sys

ASKS = re.compile(r"(passphrase[^\n]*|Confirmation): *$", re.IGNORECASE)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")

answer, command = sys.argv[1], sys.argv[2:]
process, terminal = pty.fork()
if process == 0:
    os.execvp(command[0], command)
since_answer = ""
try:
    while piece := os.read(terminal, 4096):
        text = piece.decode(errors="replace")
        sys.stdout.write(text)
        since_answer += text
        if ASKS.search(CONTROL.sub("", since_answer)):
            since_answer = ""
            os.write(terminal, answer.encode() + b"\r")
except OSError:
    # The other end of the terminal is closed: the command has ended.
    pass
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
