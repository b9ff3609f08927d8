"""Hosts with a real sshd for tests, made in a tenth of a second each and gone with the lab, however it ends.

    with Lab(3) as lab:                            # or the fixtures of tests/real: lab, lab_hosts, shared_lab
        a, b, c = lab
        subprocess.run(lab.ssh(a, "hostname"))     # OpenSSH's client; lab.ssh_config() is the text for `ssh -F`
        a.provider_entry()                         # {"host": "198.18.0.1", "port": 22, "user": "lab", "key": "…"}
        lab.known_hosts                            # the file with the hosts' keys

As root each host has network, PID, mount, UTS and IPC namespaces of its own: its address and port 22, its processes,
its home, /tmp, /etc and boot id. Its other files are the machine's, below an overlay: the host can change them all and
the machine does not. The tests stay in the machine's namespaces: one veth and one route (198.18.N.0/24) lead to the
lab's router namespace, where all faults are made. Nothing else of the machine is touched.

Not root: `lab.level` is "loopback", each host is an sshd of the user's own on 127.77.N.M port 22022, and
`lab.leaves_out` says what that leaves out. What is left out raises NotHere, which the fixtures turn into a skip.

    a.reboot()   a.power_off()   a.power_on()      # silent; with clean=True connections are closed first
    a.pause()    a.resume()                        # the kernel goes on: TCP connects, nothing answers
    a.wait_down()                                  # after reboot(2) on the host: "reboot" or "off"
    a.partition()   a.partition_in()   a.partition_out()   a.loss(10)   a.throttle("1mbit")   a.heal()
    a.reset_connections()   a.refuse()   a.hide_from_client()   lab.swap_addresses(a, b)
    a.sshd(MaxStartups="1")   a.restart_sshd()   a.stop_sshd()   a.start_sshd()   a.kill_sshd_sessions()
    a.new_host_key()   a.sshd_log()   lab.write_known_hosts(hashed=True)
    a.exec(["id"])   a.sh("echo $HOME", root=True)   a.write(".bashrc", "echo hello")   a.read("results/out")
    a.pids("agent")   a.processes()   a.kill(pid, signal.SIGSTOP)      # as the host numbers them
    a.set_shell("/bin/tcsh")   a.set_python("3.6")   a.set_python("none")   a.set_clock_offset(-3600)
    a.fill_disk()   a.fill_inodes()   a.free_disk()   a.remount(a.home, "ro")   a.limit_memory("200m")
    way = lab.proxy(a, delay=0.05); way.port       # way.up.rate = 1000; way.down.cut_after = 700; way.cut(); see Way
    lab.add(2, home_size="20m", noexec=True, python="none", internet=True)   # or home_of=a; see HostSpec

`host.environ` is what sessions and exec() find in their environment beside the usual.
"""

from .host import LabHost
from .lab import Lab
from .proxy import Proxy, Way
from .spec import HostSpec, LabError, NotHere

__all__ = ["HostSpec", "Lab", "LabError", "LabHost", "NotHere", "Proxy", "Way"]
