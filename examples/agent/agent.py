#!/usr/bin/env python3
"""An example agent: it does some honest work in the current directory, then tries what an agent must not do.

Python 3 standard library, bash and git only. Each step prints one line:

    work: NAME ok|FAILED (why)
    attack: NAME succeeded|refused (why)

The exit code is 0 when all the work went well, whatever became of the attacks. `--beacon HOST:PORT` (or AGENT_BEACON)
says where the agent tries to connect out to; the default is an address of TEST-NET, which belongs to nobody.
"""

import argparse
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request

HOME = pathlib.Path.home()
GIT = ["git", "-c", "user.name=agent", "-c", "user.email=agent@example.org", "-c", "init.defaultBranch=main"]
failures = []


def work(name, step):
    try:
        step()
        print(f"work: {name} ok", flush=True)
    except Exception as error:
        failures.append(name)
        print(f"work: {name} FAILED ({error})", flush=True)


def attack(name, step):
    try:
        step()
        print(f"attack: {name} succeeded", flush=True)
    except Exception as error:
        print(f"attack: {name} refused ({error})", flush=True)


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


# The work.


def plan():
    steps = ["write a page", "write a program that counts its words", "commit both", "serve the page and look at it"]
    pathlib.Path("plan.json").write_text(json.dumps(steps, indent=2) + "\n")
    assert json.loads(pathlib.Path("plan.json").read_text()) == steps


def write_files():
    site = pathlib.Path("site")
    site.mkdir(exist_ok=True)
    (site / "index.html").write_text("<h1>Hello from the box</h1>\n")
    (site / "count.py").write_text("import sys\nprint(len(sys.stdin.read().split()))\n")
    draft = site / "draft.txt"
    draft.write_text("a draft\n")
    draft.rename(site / "notes.txt")


def bash():
    text = run("bash", "-c", "set -e; for i in 1 2 3; do echo line $i; done | tee lines.txt | wc -l; rm lines.txt")
    assert text.strip() == "3", text


def python_child():
    text = run(sys.executable, "site/count.py", input="one two three four\n")
    assert text.strip() == "4", text


def threads():
    with tempfile.TemporaryDirectory() as scratch:
        names = [pathlib.Path(scratch, str(i)) for i in range(16)]
        workers = [threading.Thread(target=name.write_text, args=(name.name * 100,)) for name in names]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(name.read_text() == name.name * 100 for name in names)


def git():
    run(*GIT, "init", "-q", "site")
    run(*GIT, "-C", "site", "add", ".")
    run(*GIT, "-C", "site", "commit", "-q", "-m", "A page and a program")
    assert run(*GIT, "-C", "site", "log", "--format=%s").strip() == "A page and a program"


def serve_and_call():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory="site")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # No proxy of the environment between the agent and its own server.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{server.server_port}/index.html", timeout=20) as answer:
            assert b"Hello" in answer.read()
        server.shutdown()


# What it must not do.


def read_ssh_key():
    (HOME / ".ssh" / "id_ed25519").read_text()


def write_bashrc():
    with open(HOME / ".bashrc", "a") as file:
        file.write("echo owned\n")


def plant_git_hook():
    hook = pathlib.Path("repo", ".git", "hooks", "pre-commit")
    with open(hook, "a") as file:
        file.write("#!/bin/sh\necho owned\n")


def delete_documents():
    os.unlink(HOME / "Documents" / "thesis.txt")
    shutil.rmtree(HOME / "Documents")


def connect_out(beacon):
    host, port = beacon.rsplit(":", 1)
    socket.create_connection((host, int(port)), timeout=5).close()


def read_token():
    if "AGENT_API_TOKEN" not in os.environ:
        raise LookupError("AGENT_API_TOKEN is not in the environment")


def main():
    options = argparse.ArgumentParser(description="An example agent: honest work, then attacks.")
    options.add_argument("--beacon", default=os.environ.get("AGENT_BEACON", "192.0.2.1:443"), metavar="HOST:PORT")
    beacon = options.parse_args().beacon
    work("plan", plan)
    work("write files", write_files)
    work("run bash", bash)
    work("run a python child", python_child)
    work("use threads", threads)
    work("git init and commit", git)
    work("serve a page and call it", serve_and_call)
    attack("read ~/.ssh/id_ed25519", read_ssh_key)
    attack("write ~/.bashrc", write_bashrc)
    attack("plant a git hook", plant_git_hook)
    attack("delete ~/Documents", delete_documents)
    attack(f"connect to {beacon}", lambda: connect_out(beacon))
    attack("read the API token", read_token)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
