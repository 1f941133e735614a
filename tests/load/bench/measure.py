"""What a sample cost, and whether other work on the machine disturbed it."""

import atexit
import glob
import os
import resource
import time

# More than these parts of the machine's time spent by others disturbs a sample.
OTHERS, STOLEN = 0.08, 0.02
TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


def cpu(pids):
    """Seconds of CPU that these processes have used, by the scheduler's own count."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                with open(path) as file:
                    total += int(file.read().split()[0])
            except OSError:
                pass  # a thread that has just ended
    return total / 1e9


def spent(pids):
    """The same with what threads used that have ended since, to a hundredth of a second each."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass  # a process that has just ended
    return total / TICK


def machine():
    """Seconds of CPU of all there is: busy, and taken by the host."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, irq, soft, stolen = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + soft) / TICK, stolen / TICK


def own():
    """What this process and those that it has waited for used."""
    both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in both)


def resident(pid):
    """Resident memory in MiB."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise OSError(f"process {pid} has no memory")


def measured(work, pair, others):
    """Runs work. pair: the pids whose CPU is wanted; others: pids that belong to the sample as well.

    Gives back (what work gave, CPU seconds of the pair, disturbance): the disturbance is 0 where all of the
    machine's time went to the sample, 1 at the limits above, and more beyond.
    """
    everyone = set(pair) | set(others)
    before = time.monotonic(), machine(), own(), cpu(everyone), cpu(pair)
    told = work()
    after = time.monotonic(), machine(), own(), cpu(everyone), cpu(pair)
    ours = after[2] - before[2] + after[3] - before[3]
    strange, stolen = after[1][0] - before[1][0] - ours, after[1][1] - before[1][1]
    return told, after[4] - before[4], disturbance(after[0] - before[0], strange, stolen)


def disturbance(seconds, strange, stolen):
    """0 where nobody else ran, 1 at the limits above: of CPU seconds of others, and of what the host took."""
    whole = seconds * CORES
    return max(max(0.0, strange) / whole / OTHERS, max(0.0, stolen) / whole / STOLEN)


def prefer():
    """Takes what priority may be taken over other work, until this ends; whether it was."""
    group = "/proc/self/autogroup"
    try:
        os.nice(-15)
        # Where the kernel shares time out by sessions, a process' own priority counts only within its one.
        with open(group) as file:
            before = file.read().split()
        # A process of no session's group has no line there, and nothing to take.
        if before:
            atexit.register(write, group, before[-1])
            write(group, "-15")
        return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def shape():
    """The machine, without its name."""
    model = "?"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {"cpu": model, "cores": CORES, "memory_gib": round(memory), "kernel": os.uname().release.split("-")[0],
            "network": "loopback"}
