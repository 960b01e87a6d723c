"""Runs COMMAND until a line of LOG has "ready", aborts it, and prints as JSON whether the kernel wrote a core.

core-dump.py LOG COMMAND …
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time

log, command = sys.argv[1], sys.argv[2:]
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with tempfile.TemporaryDirectory() as folder, open(log, "w") as output:
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        os.execvp(command[0], command)
    deadline = time.time() + 15
    while '"ready"' not in open(log).read() and time.time() < deadline:
        time.sleep(0.05)
    os.kill(child, signal.SIGABRT)
    _, status = os.waitpid(child, 0)
    print(json.dumps({"ready": time.time() < deadline, "dumped": os.WCOREDUMP(status), "files": os.listdir(folder)}))
