"""python ssh_server.py HOME: an SSH server on a port of its own, which executes what it is told.

Writes keys and a client's configuration for the host node1 into HOME/.ssh, and the commands into
HOME/commands.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import asyncssh

HOME = Path(sys.argv[1])
SSH = HOME / ".ssh"
shells = []


async def execute(process):
    with (HOME / "commands").open("a") as commands:
        commands.write(f"{process.command}\n")
    shell = await asyncio.create_subprocess_shell(
        process.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    shells.append(shell.pid)
    await asyncio.gather(pump(shell.stdout, process.stdout), pump(shell.stderr, process.stderr))
    process.exit(await shell.wait())


async def pump(source, target):
    with contextlib.suppress(BrokenPipeError):  # the client has gone
        while data := await source.read(1 << 16):
            target.write(data)


async def main():
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    SSH.mkdir(mode=0o700)
    user_key.write_private_key(SSH / "id")
    user_key.write_public_key(SSH / "authorized_keys")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=str(SSH / "authorized_keys"),
        process_factory=execute,
        encoding=None,
    )
    port = server.get_port()
    known = f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}"
    (SSH / "known_hosts").write_text(known)
    config = SSH / "config.new"
    config.write_text(
        f"Host node1\n  Hostname 127.0.0.1\n  Port {port}\n  User me\n"
        f"  IdentityFile {SSH}/id\n  UserKnownHostsFile {SSH}/known_hosts\n"
    )
    config.rename(SSH / "config")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    for pid in shells:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


asyncio.run(main())
