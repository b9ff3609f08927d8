"""EC2 in a box for tests: the real API of moto behind faults of ours, whose instances are real hosts with sshd.

    with Cloud() as ec2:                     # or the fixtures of tests/ec2: ec2, shared_ec2. By hand: `make ec2-lab`
        ec2.environ                          # AWS_* for a client in a process: endpoint, key, region eu-west-3
        ec2.client("ec2")                    # a plain boto3 client;  ec2.image("noble") is an AMI
        one = ec2.instances[0]               # id state public private region zone type market tags… see Instance
        ec2.wait(one.id, "running")          # an event, not a poll;  ec2.alive: not terminated
        ec2.host(one.id)                     # the machine under it, as in sshlab: sh() partition() pause() processes()
        ec2.instance(one.id).console

Machines take 0.2 s to `running` and as much to sshd (`ec2.delays`, seconds for the next steps). They are in network
namespaces, with a public address that this machine reaches as far as the security groups let it (connections on TCP
begin only where a rule says so), and a private one that only other machines reach. Neither has a route elsewhere.
User data is executed as cloud-init does: MIME or single, gzip or not: #cloud-boothook at each boot before sshd; once:
bootcmd, write_files, ssh_keys, ssh_authorized_keys, then after sshd runcmd and #! scripts. `shutdown`, `poweroff`,
`reboot` and `halt` work; there is no systemd. /proc/uptime counts from the boot. IMDS is at 169.254.169.254.

    ec2.calls   ec2.calls_of("RunInstances")            # number time region action params outcome effects; see Call
    ec2.inject("RunInstances", "InsufficientInstanceCapacity", times=3, when={"InstanceType": "m7i.*"})
    ec2.inject("TerminateInstances", "InternalError", after=True)     # it is done nevertheless
    ec2.lose_reply("RunInstances")   ec2.lose_request("CreateTags")   ec2.delay("DescribeInstances", 2)
    ec2.deliver_twice("RunInstances")
    gate = ec2.hold("RunInstances", after=True); gate.reached.wait(10); gate.release()      # to kill a client there
    ec2.lift()                                          # all of these. times=None: until then; skip=n: not the first n
    ec2.outage("eu-west-1")   ec2.outage("eu-west-1", "ServiceUnavailable")   ec2.outage("eu-west-1", None)
    ec2.limits.set("RunInstances", 2, 0.5)              # a bucket of 2, one more each 2 s: RequestLimitExceeded
    ec2.lag.hidden = 3   ec2.lag.stale = 2   ec2.lag.empty = 1   ec2.lag.blank = 1   ec2.lag.page = 5
    ec2.deny("TerminateInstances")   ec2.allow()   ec2.expire_credentials()   ec2.access.skew = 600
    policy = ec2.enforce(document)                      # an IAM policy; policy.refused, policy.used (Sids)

    ec2.market.capacity["eu-west-3a", "m7i.large", "spot"] = 0      # or 2, or a code: "Unsupported"; "*" is any
    ec2.market.failing["*", "*", "*"] = 1               # pending, then terminated: Server.InsufficientInstanceCapacity
    ec2.market.quotas["eu-west-3", "L-1216C47A"] = 4    # virtual CPUs
    ec2.market.on_demand["m7i.large"] = 0.1   ec2.market.spot["eu-west-3a", "m7i.large"] = 0.03
    ec2.set_parameter("/aws/service/…", "ami-…")        # of SSM

    ec2.notice(id, seconds=2)   ec2.notice(id, withdrawn=True)   ec2.reclaim(id)      # spot
    ec2.terminate(id)   ec2.stop(id)   ec2.start(id)   ec2.reboot(id)   ec2.retag(id, {"Name": None})  # somebody else
    ec2.protect(id)   ec2.linger(id)   ec2.let_end(id)   ec2.machine_environ["NAME"] = "value"    # of later ones
    ec2.break_next("no sshd" | "no cloud-init" | "impaired" | "no machine")
    ec2.ledger()   ec2.bill()   ec2.leaks()             # seconds and dollars by EC2's rule: see ledger.py
    ec2.asked_metadata                                  # (instance, path) read at IMDS
"""

from .cloud import Cloud
from .faults import Call, Fault, Gate
from .instance import Instance
from .ledger import Row

__all__ = ["Call", "Cloud", "Fault", "Gate", "Instance", "Row"]
