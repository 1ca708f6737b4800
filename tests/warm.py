"""The commands of the package without the wait: each a fork of one process that has imported all.

Importing torch and Lightning takes longer than most of what tests want of a command. `command`
gives what to type for the one installed: a script that has a server run it, in its folder, with its
environment, input and output, and ends as it ends. The server starts when first asked for.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import irl_exp

SCRIPT = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect("{place}")
asked = json.dumps(["{name}", sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
answers = server.makefile()
pid = int(answers.readline())
for number in signal.SIGINT, signal.SIGTERM:
    signal.signal(number, lambda number, _: os.kill(pid, number))
sys.exit(int(answers.readline()))
"""


def command(name: str) -> str:
    """What to type for the console script of that name."""
    return str(_started() / name)


@functools.cache
def _started() -> Path:
    """A folder of scripts, and their server at work."""
    folder = Path(tempfile.mkdtemp(prefix="irl-exp-"))
    for script in entry_points(group="console_scripts"):
        if script.value.startswith("irl_exp."):
            text = SCRIPT.format(python=sys.executable, place=folder / "socket", name=script.name)
            (folder / script.name).write_text(text)
            (folder / script.name).chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", folder / "socket"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},  # which is read on import
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    atexit.register(shutil.rmtree, folder)
    atexit.register(server.kill)
    assert server.stdout and server.stdout.readline() == b"ready\n"
    return folder


def _serve(place: str) -> tuple[str, list[str]]:
    """The name and the words of a command; returns once for each, in a process of its own."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            _forget_the_dead()
            continue
        head, files, _, _ = socket.recv_fds(connection, 8, 3)
        with connection.makefile("rb") as asked:
            name, words, folder, environment = json.loads(asked.read(int.from_bytes(head, "big")))
        pid = os.fork()
        if pid:
            connection.sendall(b"%d\n" % pid)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            connection.sendall(b"%d\n" % (status if status >= 0 else 128 - status))
            os._exit(0)
        listener.close()
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        return name, words


def _forget_the_dead() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    for module in pkgutil.walk_packages(irl_exp.__path__, "irl_exp."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for late in ("pytorch_lightning", "peft", "transformers.models.gpt_neox.modeling_gpt_neox"):
        importlib.import_module(late)
    gc.freeze()  # what all share stays where it is
    if "triton" in sys.modules:  # as in irl_exp.cli
        atexit.register(gc.unfreeze)
    # From here on a process for each command.
    name, words = _serve(sys.argv[1])
    random.seed()
    sys.argv = [name, *words]
    # As a console script finds it: without the folder that this server was started in.
    sys.path[:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if fault := os.environ.get("IRL_EXP_FAULT"):
        importlib.import_module("tests.faults.inject").begin(fault)
    [script] = entry_points(group="console_scripts", name=name)
    sys.exit(script.load()())
