"""A run that stands still while its progress line is looked at."""
import pathlib
import re
import time

FIELDS = re.compile(r"(reading|converting|verifying|syncing)(  +\d+%(  [\d:]+ left"
                    r"(  [\d.]+ \w?B of [\d.]+ \wB(  [\d.]+ \w?B/s)?)?)?)?")


class Held:
    """A run whose 40th write does not come back before it is let go."""

    def __init__(self, fault, path):
        self.gate = pathlib.Path(f"{path}.gate")
        self.env = {**fault.env("pwrite:hang:40", f"{path}.partial"),
                    "CKPT_FAULT_GATE": str(self.gate)}

    def let_go(self):
        self.gate.touch()

    def interrupt(self, process, number):
        """Lets it go when the signal has been taken: until then it may end without noticing."""
        process.send_signal(number)
        while pending(process.pid) >> (number - 1) & 1:
            time.sleep(0.01)
        self.let_go()


def pending(pid):
    """The signals that were sent to a process and that no thread of it has taken."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^ShdPnd:\s*(\w+)", status, re.MULTILINE)[1], 16)
