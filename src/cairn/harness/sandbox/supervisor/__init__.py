"""The program that stands between a worker and the commands it runs on the host, so that none outlives the worker.

    worker ──starts──> server ──forks──> supervisor (one per command) ──forks──> the shell ──> whatever it starts

Laws. This package imports the standard library only and nothing of Cairn: it runs as its own program (`python -I -S`), whose
start is paid once per open sandbox and whose memory is copied per command. It reads the clock of its own process. A supervisor
is the sub-reaper of its command, so every orphan of the tree becomes its child; it exits only when it has none left.

- `processes.py`  what runs on this machine, as data, and how to end a set of it without hitting a reused pid
- `command.py`    the supervisor of one command
- `confine.py`    what a command's process gives up before it begins: cgroup, limits, capabilities, system calls
- `landlock.py`   files and networks it gives up, by the kernel's Landlock
- `server.py`     the loop that forks supervisors, and the program's entry
"""
