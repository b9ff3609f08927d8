"""What print_jobs_summary and print_aborted_logs print: lines, safe for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .objects import CloudSendInstance, CloudSendJob, CloudSendProcess

RULE = "-" * 72


def make_safe(text: str) -> str:
    """What machines and configs say may hold control codes: they are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def render_summary(jobs: Sequence[CloudSendJob], instance: CloudSendInstance | None) -> Iterator[str]:
    yield RULE
    if instance is not None:
        yield make_safe(f"{instance.get_name()} {instance.get_id() or ''}".rstrip())
    for job in jobs:
        yield ""
        yield make_safe(f"Job {job.get_rank()} = {job.str_simple() if instance is not None else job}")
        for process in job.get_processes():
            yield make_safe(f"|_ {process.str_simple()}")


def render_objects(state: str, objects: Mapping[str, Sequence[object]]) -> Iterator[str]:
    yield f"STATE = {state}"
    for name, found in objects.items():
        yield ""
        yield f"{name.upper()}: {RULE[len(name) + 2 :]}"
        yield from (make_safe(str(one)) for one in found)


def render_log(job: CloudSendJob, process: CloudSendProcess, tail: bytes) -> Iterator[str]:
    yield RULE
    yield make_safe(f"Job {job.get_rank()} has ABORTED: {process.get_aborted_reason() or 'no reason is known'}")
    for line in tail.decode("utf-8", "replace").splitlines():
        yield make_safe(line.replace("\t", "    "))
    yield make_safe(str(process))
