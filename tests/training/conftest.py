import sys
from pathlib import Path

# The toy is shared by the tests here, and by the processes that they kill.
sys.path.insert(0, str(Path(__file__).parent))
