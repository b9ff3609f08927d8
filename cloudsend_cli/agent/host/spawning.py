"""The start of a job's process: its program, its working directory, its signals and descriptors."""

import errno
import os
import signal

from .files import open_folder_below
from .texts import to_bytes, to_text

# What Python, nohup or a login shell may have left ignored; a job starts as from a terminal.
DEFAULT_SIGNALS = tuple(
    getattr(signal, "SIG" + name)
    for name in ("HUP", "INT", "QUIT", "PIPE", "TERM", "ALRM", "CHLD", "TSTP", "TTIN", "TTOU", "XFSZ")
)


def spawn(spec, work, env, out, err):
    """(pid, None), or (None, exit code) with the reason in the attempt's stderr. Changes our own directory."""
    argv = [to_bytes(word) for word in spec["argv"]]
    try:
        enter_folder(work, spec.get("cwd"))
        program = find_program(argv[0], env)
        if not hasattr(os, "posix_spawn"):
            return fork_exec(program, argv, env, out, err), None
        actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
        options = {"file_actions": actions, "setsigdef": DEFAULT_SIGNALS, "setsigmask": ()}
        try:
            return os.posix_spawn(program, argv, env, setsid=True, **options), None
        except NotImplementedError:
            return os.posix_spawn(program, argv, env, setpgroup=0, **options), None
    except OSError as problem:
        text = "cloudsend: cannot run %s: %s\n" % (to_text(argv[0]), problem.strerror)
        try:
            os.write(err, to_bytes(text))
        except OSError:
            pass
        return None, 127 if problem.errno == errno.ENOENT else 126


def enter_folder(work, cwd):
    if not cwd:
        return os.chdir(work)
    if cwd[0] in "/~":
        return os.chdir(to_bytes(os.path.expanduser(cwd)))
    parts = [part for part in to_bytes(cwd).split(b"/") if part not in (b"", b".")]
    folder = open_folder_below(work, parts, create=True)  # not through a link that came with the uploads
    try:
        os.fchdir(folder)
    finally:
        os.close(folder)


def find_program(name, env):
    """As execvp finds it, in the PATH of the job."""
    if b"/" in name:
        return name
    denied = None
    for folder in env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":"):
        path = os.path.join(folder or b".", name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = PermissionError(errno.EACCES, "Permission denied")
    raise denied or FileNotFoundError(errno.ENOENT, "command not found")


def fork_exec(program, argv, env, out, err):
    """For Python 3.6 and 3.7, which have no posix_spawn."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            os.dup2(out, 1)
            os.dup2(err, 2)
            for number in DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.execve(program, argv, env)  # noqa: S606
        except OSError as problem:
            os.write(writer, b"%d" % (problem.errno or errno.EIO))
        finally:
            os._exit(127)
    os.close(writer)
    number = os.read(reader, 16)
    os.close(reader)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return pid
