"""A run that stands still while its progress line is looked at."""
import pathlib
import re

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
