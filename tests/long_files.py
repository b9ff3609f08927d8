"""In which order files are handed out: the long ones first, so that no worker is left with one at the end.

Those that rent from the lab of AWS and those with hosts of their own take turns with the others: the first need the
processor most, the second mostly wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

# About how many seconds a file takes beside three others on two cores; only the order counts. None needs to be here.
SECONDS = {
    "ec2/test_ec2_faults_clients.py": 95,
    "ec2/test_ec2_crashes.py": 80,
    "ec2/test_ec2_commands.py": 80,
    "ec2/test_ec2_faults_calls.py": 75,
    "ec2/test_ec2_reuse.py": 70,
    "ec2/test_ec2_faults_machines.py": 55,
    "ec2/test_ec2_faults_limits.py": 50,
    "ec2/test_ec2_provider.py": 45,
    "ec2/test_ec2_preemption.py": 42,
    "ec2/test_ec2_life.py": 35,
    "ec2/test_ec2_faults_transfers.py": 35,
    "ec2/test_ec2_account_commands.py": 30,
    "ec2/test_ec2_example.py": 24,
    "ec2/test_ec2_switch.py": 24,
    "ec2/test_ec2_budget.py": 20,
    "ec2/test_ec2_faults_commands.py": 20,
    "real/test_machine_commands.py": 40,
    "real/test_machine_rebuild.py": 40,
    "real/test_network_weather.py": 36,
    "real/test_network_partition.py": 30,
    "real/test_agent_hangs.py": 26,
    "real/test_network_strangers.py": 24,
    "real/test_soak.py": 22,
    "real/test_examples.py": 20,
    "real/test_agent_files.py": 18,
    "real/test_host_disk.py": 18,
    "agent/test_attach.py": 110,  # and all others of the agent's, which come with it
    "simulation/test_crashes.py": 50,
    "api/test_function_runs.py": 60,
    "simulation/test_crash_worlds.py": 22,
    "simulation/test_mutants.py": 20,
    "cli/test_cli_command.py": 20,
    "test_docs.py": 20,
    "api/test_function_thousand.py": 20,
    "api/test_seed_readme_runner.py": 20,
    "api/test_function_ends.py": 20,
    "maestro/test_abuse.py": 20,
    "hosts/test_rotation.py": 16,
    "security/test_many_liars.py": 16,
    "environments/test_environment_scripts.py": 15,
    "store/test_store_damage.py": 14,
    "store/test_store_scale.py": 14,
}
REAL = 12  # what is not named and marked `real`


def order_files(files: Sequence[tuple[str, bool]]) -> list[str]:
    """Of files (below tests/, whether they are marked `real`): the order."""
    weights = {file: SECONDS.get(file, REAL if real else 0) for file, real in files}
    groups: list[list[str]] = [[], [], []]
    for file, real in sorted(files, key=lambda pair: -weights[pair[0]]):
        groups[0 if file.startswith("ec2/") else 1 if real else 2].append(file)
    small = [file for file in groups[2] if not weights[file]]
    groups[2] = groups[2][: len(groups[2]) - len(small)]
    return [file for turn in zip_longest(*groups) for file in turn if file is not None] + small
