import subprocess
import sys

_PROGRAM = """
import gc
gc.disable()
from gateway.server.garbage import collect_seldom
collect_seldom()
print(gc.isenabled(), gc.get_freeze_count() > 0, gc.get_threshold()[0] > 700)
class Cycle:
    freed = 0
    def __init__(self):
        self.itself = self
    def __del__(self):
        Cycle.freed += 1
for _ in range(100_000):
    Cycle()
print(Cycle.freed > 50_000)
"""


def test_garbage_is_found_all_the_same():
    """The search is on, seldom, and leaves alone what was loaded; cycles are freed."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
