"""What a client asks of ours about its config: its plan, and the jobs that an earlier client has run of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloudsend_cli.core.submission import PlanView, SubmitOptions
from cloudsend_cli.errors import NotFoundError

from ..client import Client
from .objects import CloudSendJob
from .opening import Source, Submission


def fetch_plan(client: Client, source: Source, options: SubmitOptions) -> PlanView:
    """Without jobs, which may be added later: the machines that it would have, with its mistakes."""
    if source.has_jobs:
        return client.plan(source.config, options=options)
    # Plans are made for jobs: one stands for all.
    alone = SubmitOptions(provider=options.provider, folder=source.folder)
    plan = client.plan({**source.document, "jobs": "true"}, options=alone)
    return replace(plan, spec=replace(plan.spec, jobs=()))


def find_earlier(client: Client, earlier: Submission, jobs: Mapping[str, CloudSendJob]) -> dict[str, CloudSendJob]:
    """By id, the jobs of the config that are part of this submission's run; none where the run is gone."""
    try:
        client.find_run(earlier.run)
    except NotFoundError:
        return {}
    return {id: jobs[name] for name, id in earlier.ids.items() if name in jobs}
