"""Memory that a benchmark's next output needs, made ready."""
import tempfile


def touch_memory(folder, size):
    """Use and free as much as an output in `folder`, a file system in memory, will need: a virtual
    machine gives free memory back to its host, and getting it again takes longer than all that is
    measured."""
    block = bytes(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(size >> 20):
            file.write(block)
