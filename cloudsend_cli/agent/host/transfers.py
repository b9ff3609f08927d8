"""Ops that move files: missing and put for uploads, manifest and read for what attempts leave."""

import os
import re
import stat

from .disk import write_all
from .encoding import compact
from .files import STORE_TIME, open_below, sha256_of, split_path, stored
from .outputs import glob_regex, manifest
from .protocol import CHUNK, ID, MAX_PAYLOAD, METRICS, STREAMS, Refused, are_whole, shas_of
from .records import folder_of
from .spec import is_names


class Transfers:
    """What takes long (a digest of much) is done by a child, which answers later."""

    VERIFY_HERE = 4 << 20  # bytes; larger uploads are verified by a child

    def __init__(self, home, hands, told):
        self.home, self.hands = home, hands
        self.told = told  # uploads that a client counts on from now on

    def ops(self):
        return {"missing": self.missing, "put": self.put, "manifest": self.manifest, "read": self.read}

    def missing(self, peer, frame, payload):
        missing = {}
        for sha in shas_of(frame.get("files")):
            self.told.add(sha)
            if stored(self.home, sha) is None:
                try:
                    missing[sha] = os.stat("%s/files/.part-%s" % (self.home, sha)).st_size
                except OSError:
                    missing[sha] = 0
        return {"missing": missing}

    def put(self, peer, frame, payload):
        sha, total, offset = frame.get("sha256"), frame.get("size_total"), frame.get("offset", 0)
        mode = frame.get("mode", 0o644)
        self.told.update(shas_of([sha]))
        if not are_whole((total, offset, mode), 1 << 50):
            raise Refused("bad-request", "size_total, offset and mode are whole numbers")
        if stored(self.home, sha) is not None:
            return {"offset": total, "done": True}
        self.append(sha, total, offset, payload)
        if offset + len(payload) < total:
            return {"offset": offset + len(payload), "done": False}

        def told(result):
            if result == b"good":
                return {"offset": total, "done": True}
            return {"ok": False, "error": {"code": "digest", "message": "the bytes are not those of " + sha}}

        if total <= self.VERIFY_HERE:
            return told(verify_upload(self.home, sha, mode))
        self.hands.fork(
            lambda: verify_upload(self.home, sha, mode),
            lambda result: peer.reply(frame.get("id"), told(result)),
        )

    def append(self, sha, total, offset, payload):
        path = "%s/files/.part-%s" % (self.home, sha)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if offset else os.O_TRUNC), 0o600)
        try:
            have = os.fstat(fd).st_size
            if offset != have or offset + len(payload) > total:
                raise Refused("offset", "not the next byte", offset=have)
            os.lseek(fd, offset, os.SEEK_SET)
            write_all(fd, payload)
        finally:
            os.close(fd)

    def manifest(self, peer, frame, payload):
        folder, patterns = attempt_folder(self.home, frame), frame.get("patterns", [])
        streams = STREAMS if frame.get("logs") is True else ()
        try:
            if not is_names(patterns):
                raise ValueError("patterns is a list of globs")
            for pattern in patterns:
                split_path(pattern.strip("/"))
                glob_regex(pattern.strip("/"))
        except (ValueError, re.error) as problem:
            raise Refused("bad-request", str(problem)) from None

        def done(result):
            if result[-1:] != b".":
                error = {"code": "internal", "message": "it was interrupted"}
                return peer.reply(frame.get("id"), {"ok": False, "error": error})
            peer.reply_in_parts(frame.get("id"), "files", (line for line in result[:-1].split(b"\n") if line), {})

        def work():
            found = list(describe_logs(folder, streams)) + list(manifest(folder + "/work", patterns))
            return b"\n".join(map(compact, found)) + b"\n."

        self.hands.fork(work, done)

    def read(self, peer, frame, payload):
        folder = attempt_folder(self.home, frame)
        offset, length = frame.get("offset", 0), frame.get("length", CHUNK)
        if not are_whole((offset, length), 1 << 62):
            raise Refused("bad-request", "offset and length are whole numbers")
        fd = open_asked_for(folder, frame)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise Refused("not-found", "not a regular file")
            content = os.pread(fd, min(length, MAX_PAYLOAD), offset)
            peer.reply(frame.get("id"), {"offset": offset, "total": about.st_size}, content)
        finally:
            os.close(fd)


def attempt_folder(home, frame):
    ident = frame.get("attempt")
    if not isinstance(ident, str) or not ID.match(ident):
        raise Refused("bad-request", "attempt is an id")
    folder = folder_of(home, ident)
    if not os.path.isdir(folder):
        raise Refused("unknown", "no such attempt here: " + ident)
    return folder


def describe_logs(folder, streams):
    for stream in streams:
        try:
            fd = open_below(folder, [stream.encode()], os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            digest, size = sha256_of(fd)
        finally:
            os.close(fd)
        yield {"stream": stream, "size": size, "sha256": digest}


def open_asked_for(folder, frame):
    try:
        if frame.get("stream") in (*STREAMS, METRICS):
            return open_below(folder, [frame["stream"].encode()], os.O_RDONLY | os.O_NONBLOCK)
        if isinstance(frame.get("path"), str):
            return open_below(folder + "/work", split_path(frame["path"]), os.O_RDONLY | os.O_NONBLOCK)
    except ValueError as problem:
        raise Refused("bad-request", str(problem)) from None
    except OSError as problem:
        raise Refused("not-found", problem.strerror) from None
    raise Refused("bad-request", "path, or stream: stdout, stderr or metrics")


def verify_upload(home, sha, mode):
    """Puts a whole upload into the store, or removes it where its bytes are others."""
    path = "%s/files/.part-%s" % (home, sha)
    with open(path, "rb") as reader:
        if sha256_of(reader.fileno())[0] != sha:
            os.unlink(path)
            return b"digest"
        os.fchmod(reader.fileno(), 0o555 if mode & 0o100 else 0o444)
        os.utime(reader.fileno(), (STORE_TIME, STORE_TIME))
        os.rename(path, "%s/files/%s" % (home, sha))
        return b"good"
