"""Programs as the READMEs of the seeds show them, age by age: calls, config keys and values are theirs, only the
imports are ours. The files that their config names are made here.

Conda, Julia and apt are not on every machine, and nothing is to be installed by a test: tools of these names stand in
for them, which note what they are asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from real_stack import Stack

from cloudsend_cli.api.seeds import CloudSendProvider, get_client

CONFIG = """
config = {
    'project'      : 'test' ,
    'profile'      : None ,
    'dev'          : False ,
    'debug'        : 1 ,
    'maestro'      : 'local' ,
    'auto_stop'    : True ,
    'provider'     : 'aws' ,
    'job_assign'   : None ,
    'recover'      : True ,
    'print_deploy' : False ,
    'mutualize_uploads' : True ,

    'instances' : [
        {
            'region'       : None ,
            'cloud_id'     : None ,
            'img_id'       : 'ami-077fd75cd229c811b' ,
            'img_username' : 'ubuntu' ,
            'type'         : 't2.micro' ,
            'cpus'         : None ,
            'gpu'          : None ,
            'disk_size'    : None ,
            'disk_type'    : None ,
            'eco'          : True ,
            'eco_life'     : None ,
            'max_bid'      : None ,
            'number'       : 1 ,
            'explode'      : True
        }

    ] ,

    'environments' : [
        {
            'name'         : None ,
            'command'      : 'example/install_julia.sh' ,
            'env_aptget'   : [ "openssh-client"] ,
            'env_conda'    : "example/environment.yml",
            'env_conda_channels' : None ,
            'env_pypi'     : "example/requirements.txt" ,
            'env_julia'    : [ "Wavelets" ] ,
        }
    ] ,

    'jobs' : [
        {
            'env_name'     : None ,
            'cpus_req'     : None ,
            'run_script'   : 'example/run_remote.py 1 10',
            'run_command'  : None ,
            'upload_files' : [ "uploaded.txt"] ,
            'input_file'   : 'input.dat' ,
            'output_file'  : 'output.dat' ,
            'repeat'       : 2 ,
        } ,
        {
            'env_name'     : None ,
            'cpus_req'     : None ,
            'run_script'   : 'example/run_remote.py 2 12',
            'run_command'  : None ,
            'upload_files' : [ "uploaded.txt"] ,
            'input_file'   : 'input.dat' ,
            'output_file'  : 'output.dat' ,
        }
    ]
}
"""

# 'eco_life' is a timedelta here, and each job has one output; 'repeat' came later.
OLD_CONFIG = "from datetime import timedelta\n" + CONFIG.replace(
    "'eco_life'     : None", "'eco_life'     : timedelta(days=30)"
).replace("'repeat'       : 2 ,", "")

MINIMUM_CONFIG = """
config = {
    'debug'        : 1 ,
    'maestro'      : 'local' ,
    'provider'     : 'aws' ,

    'instances' : [
        {
            'type'         : 't2.micro' ,
        }

    ] ,

    'environments' : [
        {
            'name'         : None ,
            'env_conda'    : "example/environment.yml",
            'env_julia'    : ["Wavelets"] ,
        }
    ] ,

    'jobs' : [
        {
            'env_name'     : None ,
            'cpus_req'     : None ,
            'run_script'   : 'example/run_remote.py 1 10',
            'upload_files' : [ "uploaded.txt"] ,
            'input_file'   : 'input.dat' ,
            'output_file'  : 'output.dat' ,
        } ,
        {
            'env_name'     : None ,
            'cpus_req'     : None ,
            'run_script'   : 'example/run_remote.py 2 12',
            'upload_files' : [ "uploaded.txt"] ,
            'input_file'   : 'input.dat' ,
            'output_file'  : 'output.dat' ,
        }
    ]
}
"""

FIRST_AWAITED = """
from cloudsend_cli.api import seeds as cloudrun
from cloudsend_cli.api.seeds import CloudRunCommandState

config = __import__(config).config

provider = cloudrun.get_client(config)

await provider.start()

provider.assign_jobs_to_instances()

await provider.deploy()

processes = await provider.run_jobs()

await provider.wait_for_jobs_state(processes,CloudRunCommandState.DONE|CloudRunCommandState.ABORTED)
"""

CLOUDRUN = """
from cloudsend_cli.api import seeds as cloudrun
from cloudsend_cli.api.seeds import CloudRunJobState
import asyncio

config = __import__(config).config

provider = cloudrun.get_client(config)

provider.start()

provider.assign_jobs_to_instances()

provider.deploy()

processes = provider.run_jobs()

processes = provider.wait_for_jobs_state(processes,CloudRunJobState.DONE|CloudRunJobState.ABORTED)
"""

CLOUDRUN_SUMMARY = """
from cloudsend_cli.api import seeds as cloudrun
from cloudsend_cli.api.seeds import CloudRunJobState
import asyncio

config = __import__(config).config

provider = cloudrun.get_client(config)

provider.start()

provider.assign_jobs_to_instances()

provider.deploy()

processes = provider.run_jobs()

processes = provider.wait_for_jobs_state(CloudRunJobState.DONE|CloudRunJobState.ABORTED,processes)
provider.wait_for_jobs_state(CloudRunJobState.DONE|CloudRunJobState.ABORTED)

processes = provider.get_jobs_states()
processes = provider.get_jobs_states(processes)

provider.print_jobs_summary()
"""

CLOUDSEND = """
from cloudsend_cli.api import seeds as cloudsend
from cloudsend_cli.api.seeds import CloudSendProcessState
import asyncio

config = __import__(config).config

provider = cloudsend.get_client(config)

provider.start()

provider.assign()

provider.deploy()

processes = provider.run()

processes = provider.watch(processes)
processes = provider.wait_for_jobs_state(CloudSendProcessState.DONE|CloudSendProcessState.ABORTED,processes)

processes = provider.get_jobs_states()
processes = provider.get_jobs_states(processes)

provider.print_jobs_summary()

provider.fetch_results('./tmp')
"""

CLOUDSEND_AWAITED = """
from cloudsend_cli.api import seeds as cloudsend
from cloudsend_cli.api.seeds import CloudSendProcessState
import asyncio

config = __import__(config).config

provider = cloudsend.get_client(config)

await provider.start()

await provider.assign()

await provider.deploy()

processes = await provider.run()

await provider.watch(processes)

processes = await provider.wait(CloudSendProcessState.DONE|CloudSendProcessState.ABORTED,processes)

processes = await provider.get_jobs_states()
processes = await provider.get_jobs_states(processes)

await provider.print_jobs_summary()

await provider.fetch_results('./tmp')
"""

RUN_SESSION = """
from cloudsend_cli.api import seeds as cloudsend
from cloudsend_cli.api.seeds import CloudSendProcessState
import asyncio

config = __import__(config).config

provider = cloudsend.get_client(config)

await provider.start()

await provider.deploy()

run_session = await provider.run()

await provider.wait(CloudSendProcessState.DONE|CloudSendProcessState.ABORTED)

await provider.get_jobs_states()
await provider.get_jobs_states(run_session)

await provider.print_jobs_summary()

await provider.fetch_results('./tmp')
"""

KATAPULT = """
from cloudsend_cli.api import seeds as katapult
from cloudsend_cli.api.seeds import KatapultProcessState
import asyncio

config = __import__(config).config

provider = katapult.get_client(config)

await provider.start()

await provider.deploy()

run_session = await provider.run()

await provider.wait(KatapultProcessState.DONE|KatapultProcessState.ABORTED)

await provider.get_jobs_states()
await provider.get_jobs_states(run_session)

await provider.print_jobs_summary()

await provider.fetch_results('./tmp')
"""

AGES = {
    "2022-11-16": FIRST_AWAITED,
    "2022-11-18": CLOUDRUN,
    "2022-11-21": CLOUDRUN_SUMMARY,
    "2022-12-07": CLOUDSEND,
    "2022-12-09": CLOUDSEND_AWAITED,
    "2022-12-12": RUN_SESSION,
    "2023-01-16": KATAPULT,
}

# The snippets await outside of functions. Afterwards it says what the client knows.
DRIVER = """
import ast, asyncio, inspect, json, sys
names = {"config": "config", "__name__": "__main__"}
sys.path.insert(0, "")
code = compile(open(sys.argv[1]).read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
found = eval(code, names)
if inspect.iscoroutine(found):
    async def run():
        await found
    asyncio.run(run())
jobs = names["provider"].get_jobs()
print("SEEN", json.dumps([{
    "rank": job.get_rank(), "script": job.get_config("run_script"), "id": job.get_id(), "hash": job.get_hash(),
    "instance": job.get_instance() and job.get_instance().get_name(),
    "env": job.get_env() and job.get_env().get_name(),
    "processes": [(p.get_uid(), p.get_state().name, int(p.get_state())) for p in job.get_processes()],
} for job in jobs]))
"""

SCRIPT = """\
import sys
with open("uploaded.txt") as sent, open("output.dat", "w") as out:
    print(*sys.argv[1:], sent.read().strip(), file=out)
"""


def write_example(folder: Path, config: str = CONFIG) -> None:
    """config.py, and the files that it names."""
    (folder / "config.py").write_text(config)
    example = folder / "example"
    example.mkdir()
    (example / "run_remote.py").write_text(SCRIPT)
    (example / "uploaded.txt").write_text("sent\n")
    (example / "install_julia.sh").write_text('echo set-up >>"$CLOUDSEND_ENV/tools"\n')
    (example / "environment.yml").write_text("name: example\nchannels: [conda-forge]\ndependencies: [python]\n")
    (example / "requirements.txt").write_text("# nothing\n")


def run_snippet(
    folder: Path, text: str, environ: dict[str, str], program: str = "driver.py"
) -> tuple[list[dict[str, Any]], str]:
    """What the client knew at the end, and what else was printed."""
    (folder / program).write_text(DRIVER)
    (folder / "snippet.py").write_text(text)
    done = subprocess.run(
        [sys.executable, program, "snippet.py"],
        capture_output=True,
        text=True,
        timeout=200,
        env=environ,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, _, seen = done.stdout.rpartition("SEEN ")
    assert done.stderr == ""
    return json.loads(seen), printed


# ---- for programs of our own ---------------------------------------------------------------------------------------


class Scripts:
    """Makes clients of one state directory, which are closed at the end."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.clients: list[CloudSendProvider] = []

    def __call__(self, *jobs: str | dict[str, Any], **keys: Any) -> CloudSendProvider:
        entries = [{"run_command": job} if isinstance(job, str) else job for job in jobs]
        return self.open({"provider": "local", "jobs": entries, **keys})

    def open(self, config: Any = None, **options: Any) -> CloudSendProvider:
        client = get_client(config, state_dir=self.stack.state, **options)
        self.clients.append(client)
        return client


def gate(stack: Stack, name: str = "gate") -> Path:
    path = stack.files / name
    os.mkfifo(path)
    return path
