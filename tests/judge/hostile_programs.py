"""Hostile stdin programs: name -> (source, verdicts that mean it was contained).

Each prints `contained` when its attack was refused, or something else when it got through; one that must be stopped
from outside (memory, time, output) names the verdict it must get instead. Judged with 1 s and 256 MiB a test.
"""

OK, STOPPED, LATE = ("success",), ("runtime_error",), ("timeout",)

# An attack that must raise OSError at every step: {steps} are expressions, one a line.
_REFUSED = """
import ctypes, os, resource, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
for step in {steps!r}:
    try:
        exec(step)
    except (OSError, ValueError):
        continue
    print("got through:", step)
print("contained")
"""


def refused(*steps: str) -> tuple[str, tuple[str, ...]]:
    return _REFUSED.format(steps=steps), OK


PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    # ------------------------------------------------------------------------------------------------ processes
    "fork_bomb": ("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n", LATE),
    "fork_bomb_that_sleeps": (
        "import os, time\ntry:\n    while True:\n        os.fork()\nexcept OSError:\n    time.sleep(60)\n",
        ("timeout", "runtime_error"),
    ),
    "fork_counts": (
        "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0:\n            "
        "time.sleep(9)\n            os._exit(0)\n        n += 1\n"
        "except OSError:\n    pass\nprint('contained' if n < 64 else n)\n",
        OK,
    ),
    "thread_bomb": (
        "import threading, time\nn = 0\ntry:\n    while n < 5000:\n        threading.Thread(target=time.sleep, "
        "args=(9,), daemon=True).start()\n        n += 1\n"
        "except (RuntimeError, MemoryError):\n    pass\nprint('contained' if n < 64 else n)\n",
        OK,
    ),
    "thread_bomb_that_spins": (
        (
            "import threading\ndef spin():\n    while True:\n        pass\nfor _ in range(30):\n    "
            "threading.Thread(target=spin).start()\n"
        ),
        LATE,
    ),
    "daemon_double_fork": (
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        for s "
        "in (1, 2, 15, 24):\n            signal.signal(s, signal.SIG_IGN)\n"
        "        time.sleep(60)\n    os._exit(0)\nos.wait()\n"
        "alive = [p for p in range(2, 400) if p != os.getpid() and os.path.exists(f'/proc/{p}')]\n"
        "print('contained' if len(alive) <= 2 else alive)\n",
        OK,
    ),
    "daemon_that_respawns": (
        (
            "import os, time\ndef child():\n    while True:\n        if os.fork():\n            os._exit(0)\n      "
            "  os.setsid()\n        time.sleep(0.001)\nif os.fork() == 0:\n    child()\nprint('contained')\n"
        ),
        OK,
    ),
    "daemon_holds_stdout": (
        "import os, time\nprint('contained', flush=True)\nif os.fork() == 0:\n    time.sleep(60)\n",
        OK,
    ),
    "daemon_writes_to_stdout_later": (
        "import os, time\nprint('contained', flush=True)\nif os.fork() == 0:\n    while True:\n        "
        "os.write(1, b'too late\\n')\n        time.sleep(0.05)\n"
        "os._exit(0)\n",
        ("success", "wrong_answer"),
    ),
    "stopped_child": (
        "import os, signal\nif os.fork() == 0:\n    os.kill(os.getpid(), signal.SIGSTOP)\nprint('contained')\n",
        OK,
    ),
    "stops_itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n", LATE),
    "cpu_in_orphans": (
        (
            "import os, time\nr, w = os.pipe()\ndef work(n):\n    t = time.process_time()\n    while "
            "time.process_time() - t < 0.1:\n        pass\n    if n == 60:\n        os.write(w, b'x')\n"
            "    elif os.fork() == 0:\n        work(n + 1)\n    os._exit(0)\nif os.fork() == 0:\n"
            "    if os.fork() == 0:\n        work(1)\n    os._exit(0)\nos.wait()\nos.read(r, 1)\nprint('got through')\n"
        ),
        LATE,
    ),
    "cpu_in_a_crowd_of_orphans": (
        (
            """
import os, time
for _ in range(40):
    r, w = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            t = time.process_time()
            while time.process_time() - t < 0.04:
                pass
            os.write(w, b'x')
        os._exit(0)
    os.wait()
    os.read(r, 1)
    os.close(r), os.close(w)
print('got through')
"""
        ),
        LATE,
    ),
    "cpu_in_children_that_it_waits_for": (
        (
            """
import os, time
for _ in range(60):
    if os.fork() == 0:
        t = time.process_time()
        while time.process_time() - t < 0.02:
            pass
        os._exit(0)
    os.wait()
print('got through')
"""
        ),
        LATE,
    ),
    "cpu_in_children_that_nobody_waits_for": (
        (
            """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(30):
    r, w = os.pipe()
    if os.fork() == 0:
        t = time.process_time()
        while time.process_time() - t < 0.2:
            pass
        os._exit(0)
    os.close(w)
    os.read(r, 1)
    os.close(r)
print('got through')
"""
        ),
        LATE,
    ),
    **{
        f"sleep_behind_vfork_{name}": (
            (
                "import ctypes, os, time\nlibc = ctypes.CDLL(None)\nn = 56 if os.uname().machine == 'x86_64' else 220\n"
                f"if libc.syscall(n, {flags}, 0, 0, 0, 0) == 0:\n    time.sleep(12)\n    os._exit(0)\n"
                "print('got through')\n"
            ),
            LATE,
        )
        for name, flags in (("alone", "0x4000 | 17"), ("as_a_sibling", "0xC000 | 17"))
    },
    "sleep_behind_vfork_in_turns": (
        (
            "import ctypes, os, time\nlibc = ctypes.CDLL(None)\nn = 56 if os.uname().machine == 'x86_64' else 220\n"
            "for _ in range(400):\n    if libc.syscall(n, 0x4000 | 17, 0, 0, 0, 0) == 0:\n        time.sleep(0.03)\n"
            "        os._exit(0)\n    os.wait()\nprint('got through')\n"
        ),
        LATE,
    ),
    "sleep_in_another_program": ("import subprocess\nsubprocess.run(['sleep', '12'])\nprint('got through')\n", LATE),
    "zombies": (
        "import os\nfor _ in range(40):\n    if os.fork() == 0:\n        os._exit(0)\nprint('contained')\n",
        OK,
    ),
    "subprocess_shell_bomb": (
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', ':(){ :|:& };:; sleep 60'])\nprint('contained')\n",
        ("timeout", "runtime_error", "success"),
    ),
    # ------------------------------------------------------------------------------------------------ signals
    "kills_pid_1": (
        (
            "import os\nfor s in range(1, 65):\n    try:\n        os.kill(1, s)\n    except OSError:\n        "
            "pass\nprint('contained')\n"
        ),
        OK,
    ),
    "kills_everyone": ("import os\ntry:\n    os.kill(-1, 9)\nexcept ProcessLookupError:\n    print('contained')\n", OK),
    "kills_its_group": ("import os\nos.kill(0, 9)\n", STOPPED),
    "stops_everyone": (
        (
            "import os, signal\ntry:\n    os.kill(-1, signal.SIGSTOP)\nexcept ProcessLookupError:\n    "
            "print('contained')\n"
        ),
        OK,
    ),
    "kills_parent_in_a_loop": (
        "import os\nfor _ in range(20000):\n    os.kill(os.getppid(), 2 + _ % 2 * 13)\nprint('contained')\n",
        OK,
    ),
    "ignores_sigterm_and_sigxcpu": (
        (
            "import signal\nfor s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except "
            "(OSError, ValueError):\n        pass\nwhile True:\n    pass\n"
        ),
        LATE,
    ),
    "blocks_all_signals_and_sleeps": (
        "import signal, time\nsignal.pthread_sigmask(0, range(1, 65))\nwhile True:\n    time.sleep(60)\n",
        LATE,
    ),
    "floods_parent_with_sigchld": (
        "import os, signal\nfor _ in range(50000):\n    os.kill(1, signal.SIGCHLD)\nprint('contained')\n",
        OK,
    ),
    "queues_realtime_signals": (
        (
            "import ctypes, os\nlibc = ctypes.CDLL(None)\nfor _ in range(100000):\n    libc.sigqueue(1, 40, None)\n"
            "print('contained')\n"
        ),
        OK,
    ),
    "fakes_sigxcpu": ("import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)\n", STOPPED),
    # ------------------------------------------------------------------------------------------------ memory
    "memory_alone": ("data = []\nwhile True:\n    data.append(bytearray(1 << 20))\n", STOPPED),
    "memory_in_one_piece": ("data = bytearray(1 << 40)\n", STOPPED),
    "memory_over_children": (
        (
            "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        data = bytearray(b'x') * (150 "
            "<< 20)\n        time.sleep(30)\n        os._exit(0)\nos.wait()\ntime.sleep(30)\nprint('got through')\n"
        ),
        STOPPED,
    ),
    "memory_over_daemons": (
        "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        os.setsid()\n        if "
        "os.fork() == 0:\n            data = bytearray(b'x') * (150 << 20)\n            time.sleep(30)\n       "
        " os._exit(0)\n"
        "time.sleep(30)\nprint('got through')\n",
        STOPPED,
    ),
    "memory_mmap_shared": (
        (
            "import mmap, time\nm = [mmap.mmap(-1, 64 << 20) for _ in range(100)]\nfor x in m:\n    "
            "x.write(bytes(64 << 20))\nprint('got through')\n"
        ),
        STOPPED,
    ),
    "memfd": refused("os.memfd_create('x')"),
    "system_v_shared_memory": refused(
        "call(29, 0, 1 << 30, 0o1600)"
        if __import__("platform").machine() == "x86_64"
        else "call(194, 0, 1 << 30, 0o1600)"
    ),
    "stack_overflow_in_c": (
        (
            "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self):\n        return "
            "repr(self)\nrepr(A())\n"
        ),
        STOPPED,
    ),
    "recursion": ("def f(n):\n    return f(n + 1)\nf(0)\n", STOPPED),
    "raises_rlimits": (
        "import resource\nfor name in ('AS', 'NPROC', 'FSIZE', 'CORE', 'NOFILE'):\n    try:\n        r, most = "
        "getattr(resource, 'RLIMIT_' + name), (resource.RLIM_INFINITY,) * 2\n        if resource.getrlimit(r) "
        "!= most:\n            resource.setrlimit(r, most)\n            print('raised', name)\n"
        "    except (ValueError, OSError):\n        pass\nprint('contained')\n",
        OK,
    ),
    "raises_its_cpu_limit_and_spins": (
        (
            "import resource\ntry:\n    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY,) * 2)\n"
            "except (ValueError, OSError):\n    pass\nwhile True:\n    pass\n"
        ),
        LATE,
    ),
    "pipes_full_of_data": (
        "import os\nheld = 0\ntry:\n    while True:\n        r, w = os.pipe()\n        os.set_blocking(w, "
        "False)\n        while True:\n            try:\n                held += os.write(w, bytes(65536))\n    "
        "        except BlockingIOError:\n                break\n"
        "except OSError:\n    pass\nprint('contained' if held < 64 << 20 else held)\n",
        OK,
    ),
    # ------------------------------------------------------------------------------------------------ files and disk
    "fills_tmp": ("with open('/tmp/x', 'wb') as f:\n    while True:\n        f.write(bytes(1 << 20))\n", STOPPED),
    "fills_tmp_with_many_files": (
        (
            "n = 0\ntry:\n    while n < 400:\n        with open(f'/tmp/{n}', 'wb') as f:\n            "
            "f.write(bytes(1 << 20))\n        n += 1\nexcept OSError:\n    pass\nprint('contained' if n < 80 else "
            "n)\n"
        ),
        OK,
    ),
    "fills_dev_shm": (
        (
            "n = 0\ntry:\n    with open('/dev/shm/x', 'wb', 0) as f:\n        while n < 1000:\n            n += "
            "f.write(bytes(1 << 20)) >> 20\nexcept OSError:\n    pass\nprint('contained' if n < 80 else n)\n"
        ),
        OK,
    ),
    "million_opens": (
        "for i in range(10**6):\n    open('/dev/null').close()\nprint('contained')\n",
        ("timeout", "success"),
    ),
    "keeps_files_open": (
        (
            "held = []\ntry:\n    while True:\n        held.append(open('/dev/null'))\nexcept OSError:\n    pass\n"
            "print('contained' if len(held) < 300 else len(held))\n"
        ),
        OK,
    ),
    "many_empty_files": (
        "import os\nfor i in range(10**6):\n    os.close(os.open(f'/tmp/{i}', os.O_CREAT | os.O_WRONLY))\n",
        ("timeout", "success", "wrong_answer", "runtime_error"),
    ),
    "deep_directories": (
        "import os\nfor i in range(5000):\n    os.mkdir('d')\n    os.chdir('d')\nprint('contained')\n",
        OK,
    ),
    "undeletable_directory": (
        "import os\nos.makedirs('/tmp/a/b')\nos.chmod('/tmp/a', 0)\nos.chmod('/tmp', 0)\nprint('contained')\n",
        OK,
    ),
    "leaves_a_module_for_the_next": (
        (
            "import os\nprint('contained' if not os.path.exists('/tmp/json.py') else 'saw the file of the test "
            "before')\nopen('/tmp/json.py', 'w').write('boom')\n"
        ),
        OK,
    ),
    "writes_everywhere": (
        "import os\nfor folder, _, files in os.walk('/'):\n    if folder.startswith(('/proc', '/tmp', "
        "'/dev/shm')):\n        continue\n    try:\n        open(folder + '/written', 'w')\n        "
        "print('wrote in', folder)\n    except OSError:\n        pass\n"
        "    if folder.count('/') > 3:\n        _[:] = []\nprint('contained')\n",
        OK,
    ),
    "symlinks_out": refused(
        "os.symlink('/etc/shadow', '/tmp/l'); open('/tmp/l')",
        "os.symlink('/proc/1/root/etc/passwd', '/tmp/m'); open('/tmp/m')",
        "os.symlink('/proc/1/fd/3', '/tmp/n'); open('/tmp/n')",
    ),
    "hard_links_out": refused(
        "os.link('/usr/bin/env', '/tmp/env'); os.chmod('/tmp/env', 0o4755)", "os.link('/proc/self/exe', '/tmp/exe')"
    ),
    "host_files": refused(
        "open('/etc/passwd')",
        "open('/etc/hostname')",
        "os.listdir('/home')",
        "os.listdir('/var')",
        "open('/proc/1/environ')",
        "os.listdir('/proc/1/cwd')",
    ),
    "device_nodes": refused(
        "os.mknod('/tmp/sda', 0o60600, os.makedev(8, 0)); open('/tmp/sda', 'rb')",
        "open('/dev/sda')",
        "open('/dev/vda')",
        "open('/dev/mem')",
        "open('/dev/kmsg')",
        "open('/dev/fuse')",
    ),
    "setuid_binaries": refused(
        "os.setuid(0)", "os.setgid(0)", "os.setgroups([0])", "os.chown('/tmp', 0, 0)", "os.chroot('/tmp')"
    ),
    "core_dump": (
        (
            "import os, resource\ntry:\n    resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))\nexcept "
            "(ValueError, OSError):\n    pass\nos.abort()\n"
        ),
        STOPPED,
    ),
    "core_pattern": refused(
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/proc/sys/kernel/modprobe', 'w')",
        "open('/proc/sysrq-trigger', 'w')",
        "open('/proc/sys/vm/drop_caches', 'w')",
    ),
    # ------------------------------------------------------------------------------------------------ output and
    # descriptors
    "stdout_flood": ("while True:\n    print('x' * 100000)\n", STOPPED),
    "stderr_flood": ("import sys\nwhile True:\n    sys.stderr.write('x' * 100000)\n", STOPPED),
    "stderr_then_stdout": ("import sys\nsys.stderr.write('x' * 10_000_000)\nprint('contained')\n", OK),
    "closes_every_descriptor": ("import os\nos.closerange(0, 256)\n", ("wrong_answer", "runtime_error")),
    "closes_stdout_after_printing": (
        "import os\nprint('contained', flush=True)\nos.close(1)\n",
        ("success", "runtime_error"),
    ),
    "writes_to_every_descriptor": (
        (
            "import os\nprint('contained', flush=True)\nfor fd in range(2, 256):\n    try:\n        os.write(fd, "
            "b'\\0' * 64)\n    except OSError:\n        pass\n"
        ),
        OK,
    ),
    "truncates_and_seeks": (
        "import os\nprint('no', flush=True)\nos.ftruncate(1, 0)\nos.lseek(1, 0, 0)\nprint('contained')\n",
        OK,
    ),
    "output_flags": (
        (
            "import fcntl, os\nfor fd in 0, 1, 2:\n    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | "
            "os.O_NONBLOCK)\nfcntl.flock(0, fcntl.LOCK_EX)\nos.fchmod(1, 0)\nprint('contained')\n"
        ),
        ("success", "runtime_error"),
    ),
    "terabyte_hole": ("import os\nos.ftruncate(1, 1 << 40)\n", STOPPED),
    "never_reads_stdin_and_sleeps": ("import time\ntime.sleep(1000)\n", LATE),
    "sleeps_and_spins": ("import time\nwhile True:\n    time.sleep(0.0005)\n", LATE),
    **{
        f"leaves_{name}": (f"import fcntl, os, socket, stat, struct, time\n{change}\n", OK)
        for name, change in {
            "flags_on_its_files": (
                """
seen = [fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_APPEND | os.O_NONBLOCK | os.O_NOATIME) for fd in range(3)]
print('contained' if seen == [0, 0, 0] else seen, flush=True)
for fd in range(3):
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)
"""
            ),
            "append_on_stdin_alone": (
                "print('contained' if not fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND else 'flag')\n"
                "fcntl.fcntl(0, fcntl.F_SETFL, os.O_APPEND)"
            ),
            "locks_on_its_files": """
new = [os.open(f'/proc/self/fd/{fd}', os.O_RDWR) for fd in range(3)]
lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)
for take in lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB), lambda fd: fcntl.fcntl(fd, 37, lock):
    for fd in (*new, 0, 1, 2):
        try:
            take(fd)
        except BlockingIOError:
            print('locked')
        except PermissionError:
            pass
        if fd in new:
            os.close(fd)
    new = []
print('contained')
""",
            "an_owner_on_its_files": """
seen = [fcntl.fcntl(fd, fcntl.F_GETOWN) or fcntl.fcntl(fd, 11) or fcntl.fcntl(fd, 1025) != 2 for fd in range(3)]
print('contained' if not any(seen) else seen)
for fd in range(3):
    for command, value in (fcntl.F_SETOWN, os.getpid()), (10, 12), (1024, fcntl.F_RDLCK):
        try:
            fcntl.fcntl(fd, command, value)
        except OSError:
            pass
""",
            "modes_on_its_files": (
                "seen = [oct(os.fstat(fd).st_mode & 0o7777) for fd in range(3)]\n"
                "print('contained' if seen == ['0o777'] * 3 else seen)\nfor fd in range(3):\n    try:\n"
                "        os.fchmod(fd, 0o1755)\n    except OSError:\n        pass"
            ),
            "times_on_its_files": (
                "seen = [os.fstat(fd).st_mtime_ns for fd in range(3)]\n"
                "print('contained' if 77 not in seen else seen)\nfor fd in range(3):\n    try:\n"
                "        os.utime(fd, ns=(77, 77))\n    except OSError:\n        pass"
            ),
            "a_position_and_data_on_stdin": (
                "print('contained' if os.lseek(0, 0, 1) == 0 == os.fstat(0).st_size else 'data')\n"
                "os.write(0, b'x' * 100)"
            ),
            "modes_of_folders": (
                """
seen = [os.stat(p).st_mode & 0o7777 for p in ('/tmp', '/dev/shm')]
print('contained' if 0o751 not in seen else seen)
for p in '/tmp', '/dev/shm':
    os.chmod(p, 0o751)
"""
            ),
            "sticky_bits_of_folders": (
                "seen = [os.stat(p).st_mode & 0o7000 for p in ('/tmp', '/dev/shm')]\n"
                "print('contained' if seen == [0, 0] else seen)\nfor p in '/tmp', '/dev/shm':\n    os.chmod(p, 0o3755)"
            ),
            "times_of_folders": (
                "seen = [(os.stat(p).st_atime_ns, os.stat(p).st_mtime_ns) for p in ('/tmp', '/dev/shm')]\n"
                "print('contained' if (77, 78) not in seen else seen)\n"
                "for p in '/tmp', '/dev/shm':\n    os.utime(p, ns=(77, 78))"
            ),
            "inode_flags_of_folders": (
                "for p in '/tmp', '/dev/shm':\n    fd = os.open(p, os.O_RDONLY)\n    try:\n"
                "        fcntl.ioctl(fd, 0x40086602, struct.pack('l', 0x40))\n        print('set')\n"
                "    except OSError:\n        pass\nprint('contained')"
            ),
            "fifos_and_sockets": (
                """
print('contained' if os.listdir('/tmp') == os.listdir('/dev/shm') == [] else 'files')
for p in '/tmp', '/dev/shm':
    os.mkfifo(p + '/f')
    socket.socket(socket.AF_UNIX).bind(p + '/s')
    os.symlink('/nowhere', p + '/l')
"""
            ),
            "a_port_in_time_wait": (
                """
s = socket.socket()
try:
    s.bind(('127.0.0.1', 47112))
except OSError as e:
    print(e)
s.listen()
c = socket.create_connection(('127.0.0.1', 47112))
a = s.accept()[0]
a.close()
c.close()
print('contained')
"""
            ),
        }.items()
    },
    # ------------------------------------------------------------------------------------------------ network
    "tcp_to_the_world": refused(
        "socket.create_connection(('192.0.2.1', 80), 1)",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "socket.getaddrinfo('example.org', 80)",
    ),
    "udp_and_raw": refused(
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    ),
    "unix_sockets_of_the_host": refused(
        "socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket')",
        "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "socket.socket(socket.AF_UNIX).connect('\\0/tmp/.X11-unix/X0')",
    ),
    "abstract_socket_outlives_test": (
        (
            "import os, socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0phase1')\ns.listen()\nif "
            "os.fork() == 0:\n    time.sleep(60)\nprint('contained')\n"
        ),
        OK,
    ),
    "listens_on_a_port": (
        (
            "import os, socket, time\ns = socket.socket()\ns.bind(('0.0.0.0', 47111))\ns.listen()\nif os.fork() == "
            "0:\n    time.sleep(60)\nprint('contained')\n"
        ),
        OK,
    ),
    # ------------------------------------------------------------------------------------------------ kernel interfaces
    "ptrace": refused(
        "call(101, 16, 1, 0, 0)",
        "call(101, 16, os.getppid(), 0, 0)",
        "call(310, 1, 0, 0, 0, 0, 0)",
        "call(311, 1, 0, 0, 0, 0, 0)",
    )
    if __import__("platform").machine() == "x86_64"
    else refused("call(117, 16, 1, 0, 0)"),
    "supervisor_memory": refused(
        "open('/proc/1/mem', 'rb')",
        "open('/proc/1/maps')",
        "os.listdir('/proc/1/fd')",
        "open('/proc/1/oom_score_adj', 'w')",
        "open('/proc/1/environ')",
    ),
    "new_namespaces": refused(
        *(
            f"call({n}, {flag})"
            for n in (272 if __import__("platform").machine() == "x86_64" else 97,)
            for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000)
        )
    ),
    "namespaces_by_clone": (
        (
            "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nn = 56 if os.uname().machine == 'x86_64' "
            "else 220\npid = libc.syscall(n, 0x10000000 | 17, 0, 0, 0, 0)\nif pid == 0:\n    os._exit(0)\n"
            "print('contained' if pid < 0 else 'made a user namespace')\n"
        ),
        OK,
    ),
    "mounts": refused(
        "call(165, b'none', b'/tmp', b'tmpfs', 0, None)", "call(166, b'/proc', 2)", "call(155, b'/tmp', b'/tmp')"
    )
    if __import__("platform").machine() == "x86_64"
    else refused("call(40, b'none', b'/tmp', b'tmpfs', 0, None)"),
    "environment": (
        (
            "import os\nodd = [k for k in os.environ if k not in ('PATH', 'HOME', 'TMPDIR', 'LANG', 'LC_CTYPE', "
            "'PWD') and not k.startswith(('PYTHONHASHSEED', 'MALLOC', 'OMP', 'OPENBLAS', 'MKL'))]\n"
            "print('contained' if not odd else odd)\n"
        ),
        OK,
    ),
    "sees_other_processes": (
        (
            "import os\nseen = [p for p in os.listdir('/proc') if p.isdigit()]\nprint('contained' if len(seen) <= "
            "2 else seen)\n"
        ),
        OK,
    ),
    "limits_of_others": refused(
        *(f"resource.prlimit({pid}, {limit}, (0, 0))" for pid in (1, "os.getppid()") for limit in range(16))
    ),
    "limits_of_pid_1_by_number": refused(
        "call(302 if os.uname().machine == 'x86_64' else 261, 1, 6, (ctypes.c_ulong * 2)(), 0)",
        "call(302 if os.uname().machine == 'x86_64' else 261, (1 << 32) + 1, 6, (ctypes.c_ulong * 2)(), 0)",
    ),
    "own_limits_may_be_lowered": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "resource.prlimit(0, resource.RLIMIT_NOFILE, (16, 16))\nprint('contained')\n",
        OK,
    ),
    "scheduling_of_others": refused(
        "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
        "os.sched_setscheduler(1, os.SCHED_BATCH, os.sched_param(0))",
        "os.sched_setparam(1, os.sched_param(0))",
        "os.sched_setaffinity(1, {min(os.sched_getaffinity(1))})",
        "os.setpriority(os.PRIO_PROCESS, 1, 19)",
        "os.setpriority(os.PRIO_PGRP, 0, 19)",
        "os.setpriority(os.PRIO_PGRP, os.getpgid(1), 19)",
        "os.setpriority(os.PRIO_USER, 0, 19)",
        "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
    ),
    "io_priority_of_others": refused(
        *(
            f"call(251 if os.uname().machine == 'x86_64' else 30, {which}, {who}, 3 << 13)"
            for which, who in ((1, 1), (2, 0), (2, 1), (3, 0), (3, "os.getuid()"))
        )
    ),
    "idle_policy_never_runs": refused(
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
        "call(314 if os.uname().machine == 'x86_64' else 274, 0, ctypes.create_string_buffer(48), 0)",
    ),
    "file_descriptor_of_pid_1": refused(
        "call(434, 1, 0)", "call(434, os.getppid(), 0)", "call(424, 0, 9, 0, 0)", "call(438, 0, 3, 0)"
    ),
    "memory_of_others_moved": refused(
        "call(440, 0, 0, 0, 0, 0)",
        "call(448, 0, 0)",
        "call(279 if os.uname().machine == 'x86_64' else 239, 1, 0, 0, 0, 0, 0)",
        "call(256 if os.uname().machine == 'x86_64' else 238, 1, 0, 0, 0)",
    ),
    "signals_to_threads_of_pid_1": (
        (
            "import ctypes, os\nlibc = ctypes.CDLL(None)\nx86 = os.uname().machine == 'x86_64'\n"
            "info = ctypes.create_string_buffer(128)\nfor s in range(1, 65):\n"
            "    libc.syscall(200 if x86 else 130, 1, s)\n    libc.syscall(234 if x86 else 131, 1, 1, s)\n"
            "    libc.syscall(129 if x86 else 138, 1, s, info)\n    libc.syscall(297 if x86 else 240, 1, 1, s, info)\n"
            "print('contained')\n"
        ),
        OK,
    ),
    "its_own_children_can_be_signalled": (
        (
            "import os, signal, time\npid = os.fork()\nif pid == 0:\n    time.sleep(9)\n    os._exit(1)\n"
            "os.kill(pid, signal.SIGTERM)\nprint('contained' if os.waitpid(pid, 0)[1] == signal.SIGTERM else 'no')\n"
        ),
        OK,
    ),
    "address_families": refused(
        *(
            f"socket.socket({family}, {kind})"
            for family in (3, 4, 5, 9, 15, 16, 17, 21, 29, 31, 35, 37, 38, 39, 40, 41, 43, 44, 45)
            for kind in (1, 2, 3, 5)
        ),
        "socket.socketpair(40, 1)",
    ),
    "clocks_and_names_of_the_host": refused(
        "time.clock_settime(time.CLOCK_REALTIME, 0)",
        "socket.sethostname('x')",
        "call(103 if os.uname().machine == 'x86_64' else 116, 3, ctypes.create_string_buffer(64), 64)",
        "call(457, 0, 0, 0, 0)",
        "call(458, 0, 0, 0, 0)",
        "call(135 if os.uname().machine == 'x86_64' else 92, 0x0040000)",
    ),
    "extended_attributes": refused(
        "os.setxattr('/tmp', 'user.x', b'x')",
        "os.setxattr('/dev/shm', 'user.x', b'x')",
        "os.setxattr(0, 'user.x', b'x')",
        "os.setxattr(1, 'user.x', b'x')",
        "os.setxattr(2, 'user.x', b'x')",
        "os.setxattr('/tmp', 'user.x', b'x', follow_symlinks=False)",
    ),
    # ------------------------------------------------------------------------------------------------ the interpreter
    "replaces_the_exit": (
        (
            "import os, sys, atexit\nos._exit = lambda *a: None\nsys.stdout = None\natexit._run_exitfuncs = None\n"
            "print = None\n"
        ),
        ("wrong_answer", "runtime_error"),
    ),
    "exception_that_cannot_be_printed": (
        "class E(Exception):\n    def __str__(self):\n        raise self\n    __repr__ = __str__\nraise E()\n",
        STOPPED,
    ),
    "atexit_never_ends": ("import atexit\n@atexit.register\ndef f():\n    while True:\n        pass\n", LATE),
    "destructor_never_ends": (
        "class A:\n    def __del__(self):\n        while True:\n            pass\na = A()\n",
        LATE,
    ),
    "thread_never_ends": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nprint('contained')\n",
        LATE,
    ),
    "segfault": ("import ctypes\nctypes.string_at(0)\n", STOPPED),
    "raises_system_exit_oddly": ("import sys\nsys.exit(2**70)\n", STOPPED),
    "raises_a_fake_syntax_error": ("raise SyntaxError('invalid syntax')\n", STOPPED),
    "changes_its_own_modules": (
        "import sys\nsys.modules.clear()\nsys.path.clear()\n",
        ("wrong_answer", "runtime_error"),
    ),
}
